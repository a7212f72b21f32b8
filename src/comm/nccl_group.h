// NCCL's handles of one group of ranks, what is under way on them, and their faults.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "caravan/backend/device_streams.h"
#include "caravan/comm/comm_watch.h"
#include "caravan/comm/nccl_library.h"
#include "caravan/comm/operation_log.h"
#include "nccl_abi.h"

namespace caravan::detail {

/// A call of NCCL and where it stands.
struct NcclCall {
  const char* name = "";
  CallSite site;
  static NcclCall here(const char* name, CallSite site = CallSite::current()) { return {name, site}; }
};

class NcclGroup final : public WatchedGroup {
 public:
  /// The handle of `rank` of `size` ranks that have the same `id`. Blocks until all of them have come.
  NcclGroup(std::shared_ptr<const NcclLibrary> library, DeviceStreams& device, const nccl::UniqueId& id,
            int rank, int size);
  ~NcclGroup() override;
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  NcclGroup(NcclGroup&&) = delete;
  NcclGroup& operator=(NcclGroup&&) = delete;

  static nccl::UniqueId make_id(const NcclLibrary& library);

  /// A way of its own for messages of one tag in one direction: a group of two, the sender first.
  struct Lane {
    nccl::Comm* comm = nullptr;
    Stream stream;
    int peer = 0;  // within the lane
  };
  using LaneKey = std::tuple<int, int, int>;  // sender, receiver, tag: ranks of the group
  void add_lane(const LaneKey& key, const nccl::UniqueId& id, bool sends);
  const Lane* lane(const LaneKey& key) const;

  /// Enqueues what `enqueue` asks NCCL for on `stream`, after what the compute stream has. The mark is of its
  /// end. While the device records nothing is under way, and the mark is of the recording. CommError when the
  /// call fails or the group has failed before.
  Mark run(const CommOperation& operation, const Stream& stream, const NcclCall& call,
           const std::function<int(const nccl::Table&)>& enqueue);
  /// Around what enqueues a recording of this group's calls on the compute stream: watched as one operation.
  void begin_replay(const CommOperation& operation);
  void end_replay();
  /// The compute stream goes on after `mark`. CommError when the group has failed.
  void follow(const Mark& mark);

  nccl::Comm* comm() const { return comm_; }
  DeviceStreams& device() const { return device_; }
  std::optional<std::string> trouble(double limit_seconds) override;

 private:
  struct UnderWay {
    CommOperation operation;
    Mark begun;
    Mark done;                           // null while this rank's thread is in the call
    std::optional<double> seen_waiting;  // when it was first seen to have begun
    bool is_done() const { return done != nullptr && done->is_done(); }
  };
  nccl::Comm* init(const nccl::UniqueId& id, int rank, int size);
  void check(int result, nccl::Comm* comm, const NcclCall& call);
  std::string fault_text(int result, nccl::Comm* comm, const NcclCall& call);
  /// What NCCL has found by itself, on any handle.
  std::optional<std::string> async_fault();
  void throw_fault();
  void note_thrown(std::string text);
  void forget_done();
  void has_been_enqueued(const Mark& done);

  std::shared_ptr<const NcclLibrary> library_;
  DeviceStreams& device_;
  int rank_;
  int size_;
  int exceptions_at_start_;
  std::string name_;                     // as the operations give it
  std::atomic<bool> has_failed_{false};  // its handles are to be aborted
  bool is_told_ = false;                 // by the watch
  struct Thrown {
    std::string text;
    double seconds = 0.0;  // when, by now_seconds()
  };
  std::optional<Thrown> thrown_;  // to the rank's thread
  nccl::Comm* comm_ = nullptr;
  std::map<LaneKey, Lane> lanes_;
  std::mutex mutex_;  // of everything above that changes, and of what is under way
  std::deque<UnderWay> under_way_;
};

}  // namespace caravan::detail

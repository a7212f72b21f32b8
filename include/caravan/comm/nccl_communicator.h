// Tensors of a device over NCCL; host tensors, and what NCCL has no call for, as StagedCommunicator does.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "caravan/comm/nccl_library.h"
#include "caravan/comm/staged_communicator.h"

namespace caravan {

namespace detail {
class NcclGroup;
struct NcclCall;
}  // namespace detail

/// Nothing here blocks on device tensors, but the construction: work is enqueued on the group's stream, after
/// what the compute stream has, and wait() orders the compute stream after it. Reductions, gathers of equal
/// parts, broadcasts and send_receive are NCCL's; so are messages between neighbours with tags that were
/// prepared (prepare_messages), whose sizes nobody compares: where they differ, the rank waits for ever and
/// the watch says so. gatherv, scatterv and other messages go through host memory. A fault that NCCL reports
/// is a CommError in the next call or wait(), and is seen by CommWatch while nobody calls.
///
/// Two groups that share ranks may have work under way at once; the ranks must ask for it in one order.
class NcclCommunicator final : public StagedCommunicator {
 public:
  /// Over the ranks of `host`, each with a device of its own, which is the calling thread's. Collective.
  NcclCommunicator(std::unique_ptr<Communicator> host, DeviceStreams& device,
                   std::shared_ptr<const NcclLibrary> library, DevicePath path = DevicePath::kThroughHost);
  ~NcclCommunicator() override;
  /// NCCL's calls can be captured into CUDA graphs; messages with prepared tags are left out of it.
  bool can_be_recorded() const override { return true; }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override;
  void do_all_reduce(const TensorView& values, ReduceOp op) override;
  void do_broadcast(const TensorView& values, int root) override;
  void do_send(const TensorView& values, int peer, int tag) override;
  void do_receive(const TensorView& values, int peer, int tag) override;
  void do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from) override;
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override;
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override;
  Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) override;
  Pending do_start_send(const TensorView& values, int peer, int tag) override;
  Pending do_start_receive(const TensorView& values, int peer, int tag) override;
  void do_prepare_messages(std::span<const int> tags) override;
  void do_begin_replay() override;
  void do_end_replay() override;
  /// NCCL has memory of its own for what arrives.
  void do_reserve_reduce_scatter(std::int64_t /*part_bytes*/) override {}

 private:
  /// Asks NCCL for the current operation on one of its handles and streams; returns its result code.
  using Enqueue = std::function<int(const nccl::Table& functions, nccl::Comm* comm, void* stream)>;

  bool is_nccl(const TensorView& view) const;
  /// Enqueued on the group's stream; the Pending's wait() lets the compute stream follow.
  Pending enqueue(Collective collective, const detail::NcclCall& call, const Enqueue& ask);
  /// The same on the way for messages with `tag` to (or from) `peer`; absent when none was prepared.
  std::optional<Pending> enqueue_message(const TensorView& values, int peer, int tag, bool sends);
  void prepare_lane(int sender, int receiver, int tag);

  std::shared_ptr<const NcclLibrary> library_;
  DevicePath path_;
  std::shared_ptr<detail::NcclGroup> group_;  // null for one rank; also held by what was started
};

}  // namespace caravan

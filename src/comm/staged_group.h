// How a call on device tensors is cut into pieces, and what a StagedCommunicator and the operations it
// started own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "caravan/comm/communicator.h"
#include "pinned_pool.h"

namespace caravan::detail {

struct StagedGroup {
  StagedGroup(std::unique_ptr<Communicator> host_group, DeviceStreams& device_used, bool passes_directly,
              std::int64_t bytes_of_piece)
      : host(std::move(host_group)),
        device(device_used),
        is_direct(passes_directly),
        piece_bytes(bytes_of_piece),
        pool(device_used) {}

  std::unique_ptr<Communicator> host;
  DeviceStreams& device;
  bool is_direct;
  std::int64_t piece_bytes;
  PinnedPool pool;
};

struct StagedCopy {
  void* to = nullptr;
  const void* from = nullptr;
  std::int64_t bytes = 0;
};

/// One piece on its way: to the host, through the library, back to the device.
struct StagedPart {
  std::vector<StagedCopy> in;
  std::function<Pending()> exchange;
  std::vector<StagedCopy> out;
};

struct StagedPlan {
  std::int64_t elements = 0;   // that are cut into pieces
  std::int64_t per_piece = 1;  // elements
  std::int64_t host_bytes_per_element = 0;
  Collective collective = Collective::kBarrier;
  std::int64_t calls_per_piece = 1;
  /// The piece of elements [begin, end), `memory` having room for it.
  std::function<StagedPart(std::int64_t begin, std::int64_t end, std::byte* memory)> make;

  std::int64_t pieces() const { return (elements + per_piece - 1) / per_piece; }
};

/// Elements [begin, end) of a contiguous tensor; what lies beyond its end is empty.
inline TensorView range(const TensorView& view, std::int64_t begin, std::int64_t end) {
  const std::int64_t count = view.numel();
  return view.reshape({count}).rows(std::min(begin, count), std::min(end, count));
}

inline std::int64_t item_bytes(const TensorView& view) {
  return static_cast<std::int64_t>(dtype_bytes(view.dtype()));
}

inline StagedCopy copy_of(const TensorView& from, const TensorView& to) {
  return {to.raw(), from.raw(), from.bytes()};
}

/// Page-locked memory on loan, free for the host again when what `stream` has at the end is done.
class PieceLoan {
 public:
  PieceLoan(StagedGroup& group, const Stream& stream, std::int64_t bytes)
      : group_(group), stream_(stream), piece_(group.pool.take(bytes)) {}
  ~PieceLoan() {
    try {
      piece_.last_copy = group_.device.record(stream_);
      group_.pool.give_back(std::move(piece_));
    } catch (...) {  // NOLINT(bugprone-empty-catch): a device that has failed needs no memory again
    }
  }
  PieceLoan(const PieceLoan&) = delete;
  PieceLoan& operator=(const PieceLoan&) = delete;
  PieceLoan(PieceLoan&&) = delete;
  PieceLoan& operator=(PieceLoan&&) = delete;

  std::byte* memory() const { return static_cast<std::byte*>(piece_.memory.data()); }
  /// What is enqueued so far is the last that touches it; until_free() waits for that.
  void mark() { piece_.last_copy = group_.device.record(stream_); }
  void until_free() const {
    if (piece_.last_copy != nullptr) {
      piece_.last_copy->wait();
    }
  }

 private:
  StagedGroup& group_;
  Stream stream_;
  PinnedPool::Piece piece_;
};

/// A started plan until its wait().
class StagedOperation {
 public:
  StagedOperation(std::shared_ptr<StagedGroup> group, const Stream& stream, const StagedPlan& plan);

  /// Enqueues the copies to the host and hands the exchanges to the StartQueue. Once, on a shared object.
  static void begin(const std::shared_ptr<StagedOperation>& operation);
  /// Until the library is done; copies back are enqueued on the stream.
  void wait();

 private:
  std::shared_ptr<StagedGroup> group_;
  Stream stream_;
  std::int64_t bytes_ = 0;
  PieceLoan loan_;
  std::vector<StagedPart> parts_;
  std::vector<Pending> exchanges_;
  std::exception_ptr error_;
};

/// Runs a plan with three pieces of memory: one arrives, one is exchanged, one leaves.
void run_staged(StagedGroup& group, const Stream& stream, const StagedPlan& plan);

}  // namespace caravan::detail

// Tensors of a device over a group that moves host memory: through page-locked buffers, in pieces, so that a
// piece is copied while the one before it is exchanged. Where MPI reads device memory itself, without the
// detour.
#pragma once

#include <cstdint>
#include <memory>

#include "caravan/backend/device_streams.h"
#include "caravan/comm/communicator.h"

namespace caravan {

namespace detail {
struct StagedGroup;
struct StagedPlan;
}  // namespace detail

/// How device tensors reach the library.
enum class DevicePath : std::uint8_t { kThroughHost, kDirect };

/// kDirect where the MPI library says that it reads device memory (CUDA-aware).
DevicePath mpi_device_path();

/// Host tensors pass through to the group behind it. Device tensors have the same results: reductions are
/// those of the host group on the same numbers, bit for bit. A call on device tensors blocks this thread
/// until the library is done with it; copies back to the device are then only enqueued.
class StagedCommunicator : public Communicator {
 public:
  /// Bytes of a piece; of all_gather and reduce_scatter over all ranks together.
  static constexpr std::int64_t kPieceBytes = std::int64_t{4} << 20;

  /// `device` outlives the group and all its parts.
  StagedCommunicator(std::unique_ptr<Communicator> host, DeviceStreams& device,
                     DevicePath path = DevicePath::kThroughHost, std::int64_t piece_bytes = kPieceBytes);
  ~StagedCommunicator() override;
  int rank() const override;
  int size() const override;
  bool serves(const Device& device) const override;
  std::unique_ptr<Communicator> alone() const override;

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override;
  void do_all_reduce(const TensorView& values, ReduceOp op) override;
  void do_broadcast(const TensorView& values, int root) override;
  /// Whole parts are staged: MPI_Gatherv finds where they belong. Each part may be on the host or the device.
  void do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root, int root) override;
  void do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine, int root) override;
  void do_send(const TensorView& values, int peer, int tag) override;
  void do_receive(const TensorView& values, int peer, int tag) override;
  void do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from) override;
  void do_barrier() override;
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override;
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override;
  Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) override;
  Pending do_start_send(const TensorView& values, int peer, int tag) override;
  Pending do_start_receive(const TensorView& values, int peer, int tag) override;
  void do_progress() override;
  void do_reserve_reduce_scatter(std::int64_t part_bytes) override;

  Communicator& host();
  DeviceStreams& device() const;
  bool is_on_device(const TensorView& view) const { return view.device().kind == DeviceKind::kCuda; }
  /// The group's stream, after what the compute stream has now.
  Stream begin();
  /// What the compute stream gets from now on is after what `stream` has.
  void end(const Stream& stream);

 private:
  Pending start(const detail::StagedPlan& plan);
  void run(const detail::StagedPlan& plan);
  /// Enqueued where at least one of the two is on the device, else done at once.
  void copy_anywhere(const TensorView& from, const TensorView& to, const Stream& stream);
  detail::StagedPlan reduction(const TensorView& values, ReduceOp op, bool blocks);
  detail::StagedPlan message(const TensorView& values, int peer, int tag, bool sends, bool blocks);
  /// A call on host tensors: what was started before it comes first. Its calls of the library count here too.
  template <class Call>
  auto on_host(Collective collective, const Call& call) {
    const HostCall counted(*this, collective);
    return call();
  }
  class HostCall {
   public:
    HostCall(StagedCommunicator& group, Collective collective);
    ~HostCall();
    HostCall(const HostCall&) = delete;
    HostCall& operator=(const HostCall&) = delete;
    HostCall(HostCall&&) = delete;
    HostCall& operator=(HostCall&&) = delete;

   private:
    StagedCommunicator& group_;
    Collective collective_;
    std::int64_t before_;
  };

  std::shared_ptr<detail::StagedGroup> group_;  // also held by what was started and not yet waited on
};

}  // namespace caravan

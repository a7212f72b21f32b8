// The group of one rank: needs no library, moves nothing.
#pragma once

#include "caravan/backend/device_streams.h"
#include "caravan/comm/communicator.h"

namespace caravan {

/// Reductions and broadcasts leave their tensor as it is; everything else copies this rank's part unless
/// source and destination are the same memory or there is none.
class SelfCommunicator final : public Communicator {
 public:
  /// Tensors in host memory.
  SelfCommunicator() = default;
  /// Also those of a device, copied on its compute stream; `device` outlives the group.
  explicit SelfCommunicator(DeviceStreams& device) : device_(&device) {}
  bool serves(const Device& device) const override {
    return device.kind == DeviceKind::kCpu || (device_ != nullptr && device == device_->device());
  }
  std::unique_ptr<Communicator> alone() const override;
  int rank() const override { return 0; }
  int size() const override { return 1; }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override;
  void do_all_reduce(const TensorView& values, ReduceOp op) override;
  void do_broadcast(const TensorView& values, int root) override;
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
  bool accepts_shapes() const override { return true; }

 private:
  void copy(const TensorView& from, const TensorView& to);

  DeviceStreams* device_ = nullptr;
};

}  // namespace caravan

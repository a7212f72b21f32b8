// Any rank of a group of any size, without the others: counts traffic and moves nothing. With CountingBackend
// the same model code runs on shapes alone, so that a plan's communication comes from the program itself.
#pragma once

#include "caravan/comm/communicator.h"

namespace caravan {

/// Takes tensors with and without memory and touches neither: what would be received, and the other ranks'
/// part of a reduction, is not there. Nothing waits.
class CountingCommunicator final : public Communicator {
 public:
  /// InternalError unless 0 <= rank < size.
  CountingCommunicator(int rank, int size);
  int rank() const override { return rank_; }
  int size() const override { return size_; }

 protected:
  /// InternalError: the other ranks' colours are not known. Construct the part instead.
  std::unique_ptr<Communicator> do_split(int color, int key) override;
  void do_all_reduce(const TensorView&, ReduceOp) override {}
  void do_broadcast(const TensorView&, int) override {}
  void do_gatherv(const TensorView&, std::span<const TensorView>, int) override {}
  void do_scatterv(std::span<const TensorView>, const TensorView&, int) override {}
  void do_send(const TensorView&, int, int) override {}
  void do_receive(const TensorView&, int, int) override {}
  void do_send_receive(const TensorView&, int, const TensorView&, int) override {}
  void do_barrier() override {}
  Pending do_start_all_reduce(const TensorView&, ReduceOp) override { return {}; }
  Pending do_start_all_gather(const TensorView&, const TensorView&) override { return {}; }
  Pending do_start_reduce_scatter(const TensorView&, const TensorView&) override { return {}; }
  Pending do_start_send(const TensorView&, int, int) override { return {}; }
  Pending do_start_receive(const TensorView&, int, int) override { return {}; }
  bool accepts_shapes() const override { return true; }

 private:
  int rank_;
  int size_;
};

}  // namespace caravan

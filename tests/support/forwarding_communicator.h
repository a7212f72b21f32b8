// A group of ranks that passes everything on to another one: base of groups that watch, or do something
// wrong.
#pragma once

#include <memory>

#include "caravan/comm/communicator.h"

namespace caravan::test {

class ForwardingCommunicator : public Communicator {
 public:
  /// `inner` outlives it.
  explicit ForwardingCommunicator(Communicator& inner) : inner_(inner) {}
  /// A part of a split.
  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner)
      : owned_(std::move(inner)), inner_(*owned_) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  bool serves(const Device& device) const override { return inner_.serves(device); }

 protected:
  Communicator& inner() { return inner_; }

  void do_all_reduce(const TensorView& values, ReduceOp op) override { inner_.all_reduce(values, op); }
  void do_broadcast(const TensorView& values, int root) override { inner_.broadcast(values, root); }
  void do_gatherv(const TensorView& mine, std::span<const TensorView> parts, int root) override {
    inner_.gatherv(mine, parts, root);
  }
  void do_scatterv(std::span<const TensorView> parts, const TensorView& mine, int root) override {
    inner_.scatterv(parts, mine, root);
  }
  void do_send(const TensorView& values, int peer, int tag) override { inner_.send(values, peer, tag); }
  void do_receive(const TensorView& values, int peer, int tag) override { inner_.receive(values, peer, tag); }
  void do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from) override {
    inner_.send_receive(outgoing, to, incoming, from);
  }
  void do_barrier() override { inner_.barrier(); }
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override {
    return inner_.start_all_reduce(values, op);
  }
  Pending do_start_all_gather(const TensorView& mine, const TensorView& gathered) override {
    return inner_.start_all_gather(mine, gathered);
  }
  Pending do_start_reduce_scatter(const TensorView& values, const TensorView& mine) override {
    return inner_.start_reduce_scatter(values, mine);
  }
  Pending do_start_send(const TensorView& values, int peer, int tag) override {
    return inner_.start_send(values, peer, tag);
  }
  Pending do_start_receive(const TensorView& values, int peer, int tag) override {
    return inner_.start_receive(values, peer, tag);
  }
  void do_progress() override { inner_.progress(); }
  void do_prepare_messages(std::span<const int> tags) override { inner_.prepare_messages(tags); }
  void do_reserve_reduce_scatter(std::int64_t part_bytes) override {
    inner_.reserve_reduce_scatter(part_bytes);
  }

 private:
  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
};

}  // namespace caravan::test

// A group of ranks in which one thing goes wrong on purpose: what a proof has to find.
#pragma once

#include <memory>
#include <optional>

#include "caravan/comm/communicator.h"

namespace caravan::test {

/// What goes wrong in the groups made by split number `split` (from 0) of the communicator that is given it.
struct PlantedFault {
  enum class Kind : std::uint8_t { kNone, kMissingAllReduce, kReversedRanks };
  Kind kind = Kind::kNone;
  int split = 0;
  std::optional<int> call = {};  // kMissingAllReduce: this call only (from 0), else all of them
};

/// Passes everything on to the group it wraps, but for the fault.
class FaultyCommunicator final : public Communicator {
 public:
  /// `inner` outlives it.
  FaultyCommunicator(Communicator& inner, PlantedFault fault) : inner_(inner), fault_(fault) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    const bool is_faulty = splits_++ == fault_.split;
    const bool is_reversed = is_faulty && fault_.kind == PlantedFault::Kind::kReversedRanks;
    return std::unique_ptr<Communicator>(
        new FaultyCommunicator(inner_.split(color, is_reversed ? size() - key : key), fault_,
                               is_faulty && fault_.kind == PlantedFault::Kind::kMissingAllReduce));
  }

 protected:
  void do_all_reduce(const TensorView& values, ReduceOp op) override {
    if (!misses_this_call()) {
      inner_.all_reduce(values, op);
    }
  }
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
    return misses_this_call() ? Pending() : inner_.start_all_reduce(values, op);
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

 private:
  /// A part of a split; no part of it is at fault again.
  FaultyCommunicator(std::unique_ptr<Communicator> inner, PlantedFault fault, bool misses_all_reduce)
      : owned_(std::move(inner)), inner_(*owned_), misses_all_reduce_(misses_all_reduce) {
    fault_.call = fault.call;
  }
  bool misses_this_call() {
    const int call = calls_++;
    return misses_all_reduce_ && fault_.call.value_or(call) == call;
  }

  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  PlantedFault fault_;
  bool misses_all_reduce_ = false;
  int splits_ = 0;
  int calls_ = 0;
};

}  // namespace caravan::test

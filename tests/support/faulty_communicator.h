// A group of ranks in which one thing goes wrong on purpose: what a proof has to find.
#pragma once

#include <optional>

#include "tests/support/forwarding_communicator.h"

namespace caravan::test {

/// What goes wrong in the groups made by split number `split` (from 0) of the communicator that is given it.
struct PlantedFault {
  enum class Kind : std::uint8_t { kNone, kMissingAllReduce, kReversedRanks };
  Kind kind = Kind::kNone;
  int split = 0;
  std::optional<int> call = {};  // kMissingAllReduce: this call only (from 0), else all of them
};

/// Passes everything on to the group it wraps, but for the fault.
class FaultyCommunicator final : public ForwardingCommunicator {
 public:
  /// `inner` outlives it.
  FaultyCommunicator(Communicator& inner, PlantedFault fault)
      : ForwardingCommunicator(inner), fault_(fault) {}

  std::unique_ptr<Communicator> split(int color, int key) override {
    const bool is_faulty = splits_++ == fault_.split;
    const bool is_reversed = is_faulty && fault_.kind == PlantedFault::Kind::kReversedRanks;
    return std::unique_ptr<Communicator>(
        new FaultyCommunicator(inner().split(color, is_reversed ? size() - key : key), fault_,
                               is_faulty && fault_.kind == PlantedFault::Kind::kMissingAllReduce));
  }

 protected:
  void do_all_reduce(const TensorView& values, ReduceOp op) override {
    if (!misses_this_call()) {
      inner().all_reduce(values, op);
    }
  }
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override {
    return misses_this_call() ? Pending() : inner().start_all_reduce(values, op);
  }

 private:
  /// A part of a split; no part of it is at fault again.
  FaultyCommunicator(std::unique_ptr<Communicator> inner, PlantedFault fault, bool misses_all_reduce)
      : ForwardingCommunicator(std::move(inner)), misses_all_reduce_(misses_all_reduce) {
    fault_.call = fault.call;
  }
  bool misses_this_call() {
    const int call = calls_++;
    return misses_all_reduce_ && fault_.call.value_or(call) == call;
  }

  PlantedFault fault_;
  bool misses_all_reduce_ = false;
  int splits_ = 0;
  int calls_ = 0;
};

}  // namespace caravan::test

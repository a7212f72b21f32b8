// A group of ranks in which one thing goes wrong on purpose: what a proof has to find.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "tests/support/forwarding_communicator.h"

namespace caravan::test {

/// What goes wrong in the groups made by split number `split` (from 0) of the communicator that is given it.
struct PlantedFault {
  enum class Kind : std::uint8_t { kNone, kMissingAllReduce, kReversedRanks, kStaleMessages };
  Kind kind = Kind::kNone;
  int split = 0;
  std::optional<int> call = {};  // kMissingAllReduce: this call only (from 0), else all of them
  int tag = 0;                   // kStaleMessages: a started send of this tag sends what the last one sent
};

/// Passes everything on to the group it wraps, but for the fault.
class FaultyCommunicator final : public ForwardingCommunicator {
 public:
  /// `inner` outlives it.
  FaultyCommunicator(Communicator& inner, PlantedFault fault)
      : ForwardingCommunicator(inner), fault_(fault) {}

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    const bool is_faulty = splits_++ == fault_.split;
    const bool is_reversed = is_faulty && fault_.kind == PlantedFault::Kind::kReversedRanks;
    return std::unique_ptr<Communicator>(
        new FaultyCommunicator(inner().split(color, is_reversed ? size() - key : key), fault_, is_faulty));
  }
  void do_all_reduce(const TensorView& values, ReduceOp op) override {
    if (!misses_this_call()) {
      inner().all_reduce(values, op);
    }
  }
  Pending do_start_all_reduce(const TensorView& values, ReduceOp op) override {
    return misses_this_call() ? Pending() : inner().start_all_reduce(values, op);
  }
  Pending do_start_send(const TensorView& values, int peer, int tag) override {
    const TensorView sent = is_stale_ && tag == fault_.tag ? instead_of(values) : values;
    return inner().start_send(sent, peer, tag);
  }

 private:
  /// A part of a split; no part of it is at fault again.
  FaultyCommunicator(std::unique_ptr<Communicator> inner, PlantedFault fault, bool is_faulty)
      : ForwardingCommunicator(std::move(inner)),
        misses_all_reduce_(is_faulty && fault.kind == PlantedFault::Kind::kMissingAllReduce),
        is_stale_(is_faulty && fault.kind == PlantedFault::Kind::kStaleMessages) {
    fault_.call = fault.call;
    fault_.tag = fault.tag;
  }
  /// What the message before had, kept for as long as messages may be under way: to the end.
  TensorView instead_of(const TensorView& values) {
    const auto* begin = static_cast<const std::byte*>(values.raw());
    sent_.emplace_back(begin, begin + values.bytes());
    std::vector<std::byte>& before = sent_.size() > 1 ? sent_[sent_.size() - 2] : sent_.back();
    return before.size() == sent_.back().size() ? TensorView(before.data(), values.dtype(), values.shape())
                                                : values;
  }
  bool misses_this_call() {
    const int call = calls_++;
    return misses_all_reduce_ && fault_.call.value_or(call) == call;
  }

  PlantedFault fault_;
  bool misses_all_reduce_ = false;
  bool is_stale_ = false;
  std::deque<std::vector<std::byte>> sent_;
  int splits_ = 0;
  int calls_ = 0;
};

}  // namespace caravan::test

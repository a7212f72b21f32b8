// A group of ranks in which one thing goes wrong on purpose: what a proof has to find.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "caravan/comm/communicator.h"

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
        new FaultyCommunicator(inner_.split(color, is_reversed ? size() - key : key), fault_, is_faulty));
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
    const TensorView sent = is_stale_ && tag == fault_.tag ? instead_of(values) : values;
    return inner_.start_send(sent, peer, tag);
  }
  Pending do_start_receive(const TensorView& values, int peer, int tag) override {
    return inner_.start_receive(values, peer, tag);
  }
  void do_progress() override { inner_.progress(); }

 private:
  /// A part of a split; no part of it is at fault again.
  FaultyCommunicator(std::unique_ptr<Communicator> inner, PlantedFault fault, bool is_faulty)
      : owned_(std::move(inner)),
        inner_(*owned_),
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

  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  PlantedFault fault_;
  bool misses_all_reduce_ = false;
  bool is_stale_ = false;
  std::deque<std::vector<std::byte>> sent_;
  int splits_ = 0;
  int calls_ = 0;
};

}  // namespace caravan::test

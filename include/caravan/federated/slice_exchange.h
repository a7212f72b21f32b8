// Moves slices between the ranks and the aggregator's full model: collect at the end of a round, distribute
// when slices move. One tensor at a time, so no rank holds more than its own part plus one tensor
// (two on the aggregator when the change is scaled or goes through the outer optimizer).
#pragma once

#include <utility>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/federated/aggregation.h"
#include "caravan/model/parameter.h"

namespace caravan {

class SliceExchange {
 public:
  static constexpr int kAggregator = 0;

  /// What travels, in the order of the parameters of `slice`: this rank's values, and on the aggregator those
  /// of the whole model, else none. Values and masters of 16-bit ones differ: docs/notes/federated.md. All
  /// outlive the exchange.
  struct Values {
    std::vector<TensorView> slice;
    std::vector<TensorView> full;
  };
  SliceExchange(Communicator& world, const Context& ctx, const ParameterSet& slice, Values values)
      : world_(world), ctx_(ctx), slice_(slice), values_(std::move(values)) {}

  /// Split parameters are gathered (MPI_Gatherv) into `full`, `slots[r]` being the slot rank r trained;
  /// replicated ones are averaged by an all-reduce, which leaves the mean in every slice. Collective.
  void collect(const std::vector<std::int64_t>& slots, Aggregation& aggregation);

  enum class Scope : std::uint8_t { kSplit, kEverything };
  /// Every rank's slice becomes its slot's part of `full`; with kEverything replicated parameters too.
  /// Collective.
  void distribute(const std::vector<std::int64_t>& slots, Scope scope);

 private:
  void gather(std::size_t index, const std::vector<std::int64_t>& slots, Aggregation& aggregation);
  void average(std::size_t index, Aggregation& aggregation);
  void distribute_whole(const TensorView& full, const TensorView& value);
  std::vector<TensorView> staged_parts(const TensorView& value, const std::vector<std::int64_t>& slots,
                                       Buffer& staging) const;
  std::vector<TensorView> parts_of(const TensorView& whole, const Parameter& slice,
                                   const std::vector<std::int64_t>& slots) const;
  bool is_aggregator() const { return world_.rank() == kAggregator; }
  bool is_split(const Parameter& parameter) const { return parameter.spec().shard.is_split("slot"); }

  Communicator& world_;
  Context ctx_;
  const ParameterSet& slice_;
  Values values_;
};

}  // namespace caravan

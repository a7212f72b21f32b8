#include "caravan/federated/slice_exchange.h"

#include "caravan/federated/slots.h"
#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

/// The dim along which a slice is cut.
int cut_dim(const Parameter& parameter) {
  return parameter.spec().shard.cuts.front().dim;
}

}  // namespace

/// Views of `whole` (the global tensor) that are the ranks' slices; strided when the cut is along dim 1.
std::vector<TensorView> SliceExchange::parts_of(const TensorView& whole, const Parameter& slice,
                                                const std::vector<std::int64_t>& slots) const {
  std::vector<TensorView> parts;
  for (const std::int64_t slot : slots) {
    const Region region =
        slice.spec().shard.resolve(slice.spec().shape, slot_coordinates(slot, world_.size()));
    TensorView part = whole;
    for (std::size_t dim = 0; dim < region.size(); ++dim) {
      part = part.slice(static_cast<int>(dim), region[dim].begin, region[dim].end);
    }
    parts.push_back(part);
  }
  return parts;
}

/// One contiguous block per rank, as slices travel when they are columns of the global tensor.
std::vector<TensorView> SliceExchange::staged_parts(const TensorView& value,
                                                    const std::vector<std::int64_t>& slots,
                                                    Buffer& staging) const {
  staging = ctx_.backend.allocate(value.bytes() * static_cast<std::int64_t>(slots.size()));
  std::vector<TensorView> parts;
  for (std::size_t rank = 0; rank < slots.size(); ++rank) {
    parts.push_back(
        staging.view(static_cast<std::int64_t>(rank) * value.bytes(), value.dtype(), value.shape()));
  }
  return parts;
}

void SliceExchange::collect(const std::vector<std::int64_t>& slots, Aggregation& aggregation) {
  for (std::size_t index = 0; index < slice_.all().size(); ++index) {
    if (is_split(slice_.all()[index])) {
      gather(index, slots, aggregation);
    } else {
      average(index, aggregation);
    }
  }
}

void SliceExchange::gather(std::size_t index, const std::vector<std::int64_t>& slots,
                           Aggregation& aggregation) {
  const Parameter& slice = slice_.all()[index];
  const TensorView& value = values_.slice[index];
  if (!is_aggregator()) {
    world_.gatherv(value, {}, kAggregator);
    return;
  }
  const TensorView& full = values_.full[index];
  const bool by_rows = cut_dim(slice) == 0;
  if (by_rows && aggregation.takes_values_as_they_are()) {
    world_.gatherv(value, parts_of(full, slice, slots), kAggregator);
    return;
  }
  Buffer staging;
  const std::vector<TensorView> blocks = staged_parts(value, slots, staging);
  world_.gatherv(value, blocks, kAggregator);
  Buffer assembled_memory;
  TensorView assembled = full;
  if (!aggregation.takes_values_as_they_are()) {
    assembled_memory = ctx_.backend.allocate(full.bytes());
    assembled = assembled_memory.view(0, full.dtype(), full.shape());
  }
  const std::vector<TensorView> parts = parts_of(assembled, slice, slots);
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    copy(ctx_, {.from = blocks[rank], .to = parts[rank]});
  }
  if (!aggregation.takes_values_as_they_are()) {
    aggregation.apply(index, Aggregation::Kind::kSplit, assembled, full);
  }
}

void SliceExchange::average(std::size_t index, Aggregation& aggregation) {
  const TensorView& value = values_.slice[index];
  if (world_.size() > 1) {
    world_.all_reduce(value, ReduceOp::kSum);
    scale(ctx_, {.x = value, .factor = 1.0 / static_cast<double>(world_.size())});
  }
  if (!is_aggregator()) {
    return;
  }
  const TensorView& full = values_.full[index];
  if (aggregation.takes_values_as_they_are()) {
    copy(ctx_, {.from = value, .to = full});
  } else {
    aggregation.apply(index, Aggregation::Kind::kReplicated, value, full);
  }
}

void SliceExchange::distribute_whole(const TensorView& full, const TensorView& value) {
  if (is_aggregator()) {
    copy(ctx_, {.from = full, .to = value});
  }
  world_.broadcast(value, kAggregator);
}

void SliceExchange::distribute(const std::vector<std::int64_t>& slots, Scope scope) {
  for (std::size_t index = 0; index < slice_.all().size(); ++index) {
    const Parameter& slice = slice_.all()[index];
    const TensorView& value = values_.slice[index];
    const TensorView full = is_aggregator() ? values_.full[index] : TensorView();
    if (!is_split(slice)) {
      if (scope == Scope::kEverything) {
        distribute_whole(full, value);
      }
      continue;
    }
    if (!is_aggregator()) {
      world_.scatterv({}, value, kAggregator);
      continue;
    }
    const std::vector<TensorView> parts = parts_of(full, slice, slots);
    if (cut_dim(slice) == 0) {
      world_.scatterv(parts, value, kAggregator);
      continue;
    }
    Buffer staging;
    const std::vector<TensorView> blocks = staged_parts(value, slots, staging);
    for (std::size_t rank = 0; rank < parts.size(); ++rank) {
      copy(ctx_, {.from = parts[rank], .to = blocks[rank]});
    }
    world_.scatterv(blocks, value, kAggregator);
  }
}

}  // namespace caravan

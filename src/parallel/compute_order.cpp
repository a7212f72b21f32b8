#include "compute_order.h"

#include <algorithm>

namespace caravan {
namespace {

using Order = std::vector<Computation>;

Order gpipe(const PipelineShape& shape) {
  Order order;
  for (const PipelineOp op : {PipelineOp::kForward, PipelineOp::kBackward}) {
    for (std::int64_t i = 0; i < shape.micro_batches; ++i) {
      order.push_back({op, 0, i});
    }
  }
  return order;
}

/// `forward` and `backward` are the same number of computations: `warmup` forwards, then one of each, then
/// the rest.
Order one_forward_one_backward(const Order& forward, const Order& backward, std::size_t warmup) {
  Order order(forward.begin(), forward.begin() + static_cast<std::ptrdiff_t>(warmup));
  for (std::size_t i = 0; i < backward.size(); ++i) {
    if (warmup + i < forward.size()) {
      order.push_back(forward[warmup + i]);
    }
    order.push_back(backward[i]);
  }
  return order;
}

std::size_t at_most(std::int64_t wanted, const Order& forward) {
  return std::min(static_cast<std::size_t>(wanted), forward.size());
}

/// Narayanan et al. 2019 (PipeDream-flush): just as many forwards ahead as the stages after this one need.
Order one_f_one_b(const PipelineShape& shape, int rank) {
  Order forward;
  Order backward;
  for (std::int64_t i = 0; i < shape.micro_batches; ++i) {
    forward.push_back({PipelineOp::kForward, 0, i});
    backward.push_back({PipelineOp::kBackward, 0, i});
  }
  return one_forward_one_backward(forward, backward, at_most(shape.ranks - rank - 1, forward));
}

/// Narayanan et al. 2021. Micro-batches go in groups; a group passes all chunks of a rank before the next
/// does. Groups have at least as many micro-batches as there are ranks where that is possible: with fewer, a
/// rank would wait for the group to come round. Sizes differ by one at most, larger ones first: the warm-up
/// is counted in the first group's size and has to do for all.
Order interleaved(const PipelineShape& shape, int rank) {
  if (shape.chunks == 1) {
    return one_f_one_b(shape, rank);
  }
  const std::int64_t m = shape.micro_batches;
  const std::int64_t groups = std::max<std::int64_t>(1, m / shape.ranks);
  Order forward;
  Order backward;
  std::int64_t begin = 0;
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t end = begin + m / groups + (group < m % groups ? 1 : 0);
    for (int chunk = 0; chunk < shape.chunks; ++chunk) {
      for (std::int64_t i = begin; i < end; ++i) {
        forward.push_back({PipelineOp::kForward, chunk, i});
        backward.push_back({PipelineOp::kBackward, shape.chunks - 1 - chunk, i});
      }
    }
    begin = end;
  }
  const std::int64_t first_group = (m + groups - 1) / groups;
  const std::int64_t warmup = 2 * (shape.ranks - rank - 1) + (shape.chunks - 1) * first_group;
  return one_forward_one_backward(forward, backward, at_most(warmup, forward));
}

/// ZB-H1 of Qi et al. 2023: 1F1B, but rank k puts off its weight products by k micro-batches. The gradient
/// reaches the ranks before it sooner, and the drain, in which a rank otherwise waits, has work. With the k
/// put off there are as many micro-batches alive on every rank as 1F1B has on rank 0.
Order zero_bubble(const PipelineShape& shape, int rank) {
  Order order;
  std::int64_t next_weight = 0;
  for (const Computation& computation : one_f_one_b(shape, rank)) {
    if (computation.op == PipelineOp::kForward) {
      order.push_back(computation);
      continue;
    }
    order.push_back({PipelineOp::kBackwardInput, 0, computation.micro_batch});
    if (computation.micro_batch >= rank) {
      order.push_back({PipelineOp::kBackwardWeight, 0, next_weight++});
    }
  }
  while (next_weight < shape.micro_batches) {
    order.push_back({PipelineOp::kBackwardWeight, 0, next_weight++});
  }
  return order;
}

}  // namespace

std::vector<Computation> compute_order(const PipelineShape& shape, int rank) {
  switch (shape.schedule) {
    case PipelineSchedule::kGpipe:
      return gpipe(shape);
    case PipelineSchedule::k1F1B:
      return one_f_one_b(shape, rank);
    case PipelineSchedule::kInterleaved:
      return interleaved(shape, rank);
    case PipelineSchedule::kZeroBubble:
      return zero_bubble(shape, rank);
  }
  return {};
}

}  // namespace caravan

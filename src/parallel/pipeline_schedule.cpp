#include "caravan/parallel/pipeline_schedule.h"

#include <algorithm>

#include "caravan/core/error.h"
#include "compute_order.h"

namespace caravan {
namespace {

void check_shape(const PipelineShape& shape) {
  if (shape.ranks < 1 || shape.chunks < 1 || shape.micro_batches < 1) {
    fail<ConfigError>(
        "a pipeline of {} ranks, {} stages per rank and {} micro-batches: each must be at least 1",
        shape.ranks, shape.chunks, shape.micro_batches);
  }
  if (shape.chunks > 1 && shape.schedule != PipelineSchedule::kInterleaved) {
    fail<ConfigError>(
        "the pipeline schedule {} has one stage per rank, not {}; use the schedule interleaved, or one stage "
        "per "
        "rank",
        enum_name(shape.schedule), shape.chunks);
  }
}

/// Turns the order of a rank's computations into its list: messages around them, and memory slots.
class ListBuilder {
 public:
  ListBuilder(const PipelineShape& shape, int rank) : shape_(shape), rank_(rank) {}

  void add(const Computation& computation) {
    const int stage = computation.chunk * shape_.ranks + rank_;
    PipelineStep step{.op = computation.op,
                      .micro_batch = computation.micro_batch,
                      .stage = stage,
                      .slot = slot_of(computation.micro_batch, stage)};
    switch (computation.op) {
      case PipelineOp::kForward:
        step.slot = take_slot(computation.micro_batch, stage);
        message(PipelineOp::kReceiveActivation, step, stage - 1);
        steps_.push_back(step);
        message(PipelineOp::kSendActivation, step, stage + 1);
        break;
      case PipelineOp::kBackward:
      case PipelineOp::kBackwardInput:
        message(PipelineOp::kReceiveGradient, step, stage + 1);
        steps_.push_back(step);
        message(PipelineOp::kSendGradient, step, stage - 1);
        break;
      default:
        steps_.push_back(step);
    }
    if (step.op == PipelineOp::kBackward || step.op == PipelineOp::kBackwardWeight) {
      slots_[static_cast<std::size_t>(step.slot)] = {};
    }
  }

  std::vector<PipelineStep> take_steps() { return std::move(steps_); }
  int slots() const { return static_cast<int>(slots_.size()); }

 private:
  struct Tenant {
    std::int64_t micro_batch = -1;
    int stage = -1;
    friend bool operator==(const Tenant&, const Tenant&) = default;
  };

  /// A message to or from stage `other`, where there is one and another rank has it.
  void message(PipelineOp op, PipelineStep step, int other) {
    if (other < 0 || other >= shape_.stages() || shape_.rank_of(other) == rank_) {
      return;
    }
    step.op = op;
    step.peer = shape_.rank_of(other);
    steps_.push_back(step);
  }

  int slot_of(std::int64_t micro_batch, int stage) const {
    const auto found = std::find(slots_.begin(), slots_.end(), Tenant{micro_batch, stage});
    return static_cast<int>(found - slots_.begin());
  }

  /// The first free slot, so that as many are made as are ever alive at once.
  int take_slot(std::int64_t micro_batch, int stage) {
    const auto free = std::find(slots_.begin(), slots_.end(), Tenant{});
    const auto slot = free - slots_.begin();
    if (free == slots_.end()) {
      slots_.emplace_back();
    }
    slots_[static_cast<std::size_t>(slot)] = {micro_batch, stage};
    return static_cast<int>(slot);
  }

  const PipelineShape& shape_;
  int rank_;
  std::vector<PipelineStep> steps_;
  std::vector<Tenant> slots_;
};

const char* name_of(PipelineOp op) {
  switch (op) {
    case PipelineOp::kForward:
      return "forward";
    case PipelineOp::kBackward:
      return "backward";
    case PipelineOp::kBackwardInput:
      return "input gradient";
    case PipelineOp::kBackwardWeight:
      return "weight gradient";
    case PipelineOp::kSendActivation:
      return "send of the activation";
    case PipelineOp::kReceiveActivation:
      return "receive of the activation";
    case PipelineOp::kSendGradient:
      return "send of the gradient";
    case PipelineOp::kReceiveGradient:
      return "receive of the gradient";
  }
  return "?";
}

}  // namespace

bool is_message(PipelineOp op) {
  return op >= PipelineOp::kSendActivation;
}

std::string describe(const PipelineStep& step) {
  std::string text =
      fmt::format("{} of micro-batch {} in stage {}", name_of(step.op), step.micro_batch, step.stage);
  if (!is_message(step.op)) {
    return text;
  }
  const bool is_send = step.op == PipelineOp::kSendActivation || step.op == PipelineOp::kSendGradient;
  return fmt::format("{}, {} rank {}", text, is_send ? "to" : "from", step.peer);
}

PipelinePlan make_pipeline(const PipelineShape& shape) {
  check_shape(shape);
  PipelinePlan plan{.shape = shape, .ranks = {}, .slots = {}};
  for (int rank = 0; rank < shape.ranks; ++rank) {
    ListBuilder builder(shape, rank);
    for (const Computation& computation : compute_order(shape, rank)) {
      builder.add(computation);
    }
    plan.ranks.push_back(builder.take_steps());
    plan.slots.push_back(builder.slots());
  }
  return plan;
}

int most_slots(const PipelineShape& shape, int rank) {
  int most = 0;
  const auto consider = [&](std::int64_t micro_batches) {
    PipelineShape smaller = shape;
    smaller.micro_batches = micro_batches;
    most = std::max(most, make_pipeline(smaller).slots.at(static_cast<std::size_t>(rank)));
  };
  // More micro-batches need no fewer slots, but that interleaved's groups are largest with 2p − 1 of them.
  for (std::int64_t count = 1; count <= std::min<std::int64_t>(shape.micro_batches, 2 * shape.ranks);
       ++count) {
    consider(count);
  }
  consider(shape.micro_batches);
  return most;
}

}  // namespace caravan

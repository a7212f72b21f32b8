#include <fmt/format.h>

#include <map>
#include <utility>

#include "caravan/parallel/pipeline_schedule.h"

namespace caravan {
namespace {

/// What has been done with one micro-batch in one stage.
struct Progress {
  bool has_input = false;  // activation of the stage before
  bool is_forward_done = false;
  bool is_output_sent = false;
  bool has_gradient = false;  // of the stage after
  bool is_input_gradient_done = false;
  bool is_weight_gradient_done = false;
  bool is_gradient_sent = false;
};

class RankCheck {
 public:
  RankCheck(const PipelinePlan& plan, int rank, std::vector<std::string>& faults)
      : shape_(plan.shape),
        rank_(rank),
        faults_(faults),
        slots_(static_cast<std::size_t>(plan.slots[static_cast<std::size_t>(rank)]), kNobody) {}

  void check(const PipelineStep& step) {
    if (step.stage < 0 || step.stage >= shape_.stages() || shape_.rank_of(step.stage) != rank_ ||
        step.micro_batch < 0 || step.micro_batch >= shape_.micro_batches || step.slot < 0 ||
        step.slot >= static_cast<int>(slots_.size())) {
      report(step, "no such stage, micro-batch or slot here");
      return;
    }
    is_message(step.op) ? check_message(step) : check_computation(step);
  }

  void check_end() {
    for (int stage = rank_; stage < shape_.stages(); stage += shape_.ranks) {
      for (std::int64_t i = 0; i < shape_.micro_batches; ++i) {
        const Progress& at = progress_[{stage, i}];
        const bool is_complete = at.is_forward_done && at.is_input_gradient_done &&
                                 at.is_weight_gradient_done &&
                                 (at.is_output_sent || !is_elsewhere(stage + 1)) &&
                                 (at.is_gradient_sent || !is_elsewhere(stage - 1));
        if (!is_complete) {
          faults_.push_back(
              fmt::format("rank {}: micro-batch {} in stage {} is not finished", rank_, i, stage));
        }
      }
    }
  }

 private:
  bool exists(int stage) const { return stage >= 0 && stage < shape_.stages(); }
  bool is_elsewhere(int stage) const { return exists(stage) && shape_.rank_of(stage) != rank_; }

  void report(const PipelineStep& step, const char* what) {
    faults_.push_back(fmt::format("rank {}: {}: {}", rank_, describe(step), what));
  }
  void require(bool is_right, const PipelineStep& step, const char* what) {
    if (!is_right) {
      report(step, what);
    }
  }
  /// Marks as done what may be done once.
  void once(bool& is_done, const PipelineStep& step) {
    require(!is_done, step, "a second time");
    is_done = true;
  }

  void check_message(const PipelineStep& step) {
    Progress& at = progress_[{step.stage, step.micro_batch}];
    const bool is_towards_end =
        step.op == PipelineOp::kSendActivation || step.op == PipelineOp::kReceiveGradient;
    const int other = step.stage + (is_towards_end ? 1 : -1);
    require(is_elsewhere(other) && shape_.rank_of(other) == step.peer, step, "the wrong rank");
    if (step.op == PipelineOp::kReceiveActivation) {
      once(at.has_input, step);
    } else if (step.op == PipelineOp::kSendActivation) {
      require(at.is_forward_done, step, "before the forward");
      once(at.is_output_sent, step);
    } else if (step.op == PipelineOp::kReceiveGradient) {
      once(at.has_gradient, step);
    } else {
      require(at.is_input_gradient_done, step, "before the backward");
      once(at.is_gradient_sent, step);
    }
  }

  void check_computation(const PipelineStep& step) {
    Progress& at = progress_[{step.stage, step.micro_batch}];
    auto& tenant = slots_[static_cast<std::size_t>(step.slot)];
    const std::pair self{step.stage, step.micro_batch};
    if (step.op == PipelineOp::kForward) {
      const bool is_local = exists(step.stage - 1) && !is_elsewhere(step.stage - 1);
      require(is_local ? progress_[{step.stage - 1, step.micro_batch}].is_forward_done
                       : at.has_input || step.stage == 0,
              step, "without input");
      once(at.is_forward_done, step);
      require(tenant == kNobody, step, "in a slot that is in use");
      tenant = self;
      in_order(next_forward_, step);
      return;
    }
    require(at.is_forward_done && tenant == self, step, "without a forward in this slot");
    if (step.op != PipelineOp::kBackwardWeight) {
      const bool is_local = exists(step.stage + 1) && !is_elsewhere(step.stage + 1);
      require(is_local ? progress_[{step.stage + 1, step.micro_batch}].is_input_gradient_done
                       : at.has_gradient || !exists(step.stage + 1),
              step, "without a gradient");
      once(at.is_input_gradient_done, step);
    }
    if (step.op != PipelineOp::kBackwardInput) {
      require(at.is_input_gradient_done, step, "before the input gradient");
      once(at.is_weight_gradient_done, step);
      tenant = kNobody;
      in_order(next_weight_, step);
    }
  }

  void in_order(std::map<int, std::int64_t>& next, const PipelineStep& step) {
    require(next[step.stage]++ == step.micro_batch, step, "not in the order of micro-batches");
  }

  static constexpr std::pair<int, std::int64_t> kNobody{-1, -1};
  const PipelineShape& shape_;
  int rank_;
  std::vector<std::string>& faults_;
  std::map<std::pair<int, std::int64_t>, Progress> progress_;
  std::vector<std::pair<int, std::int64_t>> slots_;  // who has each
  std::map<int, std::int64_t> next_forward_;
  std::map<int, std::int64_t> next_weight_;
};

}  // namespace

std::vector<std::string> find_pipeline_faults(const PipelinePlan& plan) {
  std::vector<std::string> faults;
  for (int rank = 0; rank < plan.shape.ranks; ++rank) {
    RankCheck check(plan, rank, faults);
    for (const PipelineStep& step : plan.ranks[static_cast<std::size_t>(rank)]) {
      check.check(step);
    }
    check.check_end();
  }
  return faults;
}

}  // namespace caravan

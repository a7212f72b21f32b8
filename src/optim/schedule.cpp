#include "caravan/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "caravan/core/error.h"

namespace caravan {
namespace {

/// wsd without decay_steps: a tenth of the run, which Hägele et al. 2024 found to be enough.
constexpr std::int64_t kDefaultDecayPart = 10;

std::int64_t decay_steps(const ScheduleSection& schedule, std::int64_t total_steps) {
  const std::int64_t after_warmup = std::max<std::int64_t>(total_steps - schedule.warmup_steps, 0);
  if (schedule.name != LrSchedule::kWsd) {
    return after_warmup;
  }
  const std::int64_t tenth = (total_steps + kDefaultDecayPart - 1) / kDefaultDecayPart;
  return schedule.decay_steps.value_or(std::min(tenth, after_warmup));
}

/// What is left of the rate at part `progress` of the decay.
double shape(LrSchedule name, double progress) {
  return name == LrSchedule::kCosine ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress)) : 1.0 - progress;
}

double factor(const ScheduleSection& schedule, std::int64_t step, std::int64_t total_steps) {
  if (step <= schedule.warmup_steps) {
    return static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  }
  if (schedule.name == LrSchedule::kConstant) {
    return 1.0;
  }
  const std::int64_t decay = decay_steps(schedule, total_steps);
  const std::int64_t into_decay = step - 1 - (total_steps - decay);
  if (into_decay <= 0) {
    return 1.0;
  }
  const double progress =
      into_decay < decay ? static_cast<double>(into_decay) / static_cast<double>(decay) : 1.0;
  return schedule.final_factor + (1.0 - schedule.final_factor) * shape(schedule.name, progress);
}

}  // namespace

double scheduled_lr(const OptimizerSection& optimizer, std::int64_t step, std::int64_t total_steps) {
  CARAVAN_CHECK(step >= 1, "the first step of a schedule is 1, not {}", step);
  return optimizer.lr * factor(optimizer.schedule, step, total_steps);
}

bool is_flat(const ScheduleSection& schedule) {
  return schedule.name == LrSchedule::kConstant && schedule.warmup_steps <= 1;
}

void check_schedule(const ScheduleSection& schedule, std::int64_t total_steps) {
  const std::int64_t decay = schedule.decay_steps.value_or(0);
  if (total_steps > 0 && schedule.warmup_steps + decay > total_steps) {
    fail<ConfigError>(
        "optimizer.schedule: {} warm-up steps{} do not fit in a run of {} step{}; lower "
        "optimizer.schedule.warmup_steps{}, or train longer",
        schedule.warmup_steps, decay > 0 ? fmt::format(" and {} decay steps", decay) : "", total_steps,
        total_steps == 1 ? "" : "s", decay > 0 ? " or decay_steps" : "");
  }
}

}  // namespace caravan

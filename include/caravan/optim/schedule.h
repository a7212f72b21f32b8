// Learning-rate schedules: pure functions of the step. Nothing is remembered, so resuming needs no state.
//
// Of a run of T steps with warm-up W, step s (from 1) has, as in torchtitan:
//   s ≤ W:      s/W of the peak, so the first step already learns and step W has the full rate;
//   s ≤ B + 1:  the full rate;
//   then:       final_factor + (1 − final_factor) · shape(p), p = (s − 1 − B) / (T − B),
// where the decay begins after step B = W (linear, cosine) or B = T − decay_steps (wsd), and shape is 1 − p
// (linear, wsd) or (1 + cos πp)/2 (cosine). p is below 1 at step T: final_factor would be reached one step
// later. transformers' schedules decay the same way and warm up with (s − 1)/W.
#pragma once

#include <cstdint>

#include "caravan/config/run_config.h"

namespace caravan {

/// The learning rate of `step` (from 1) in a run of `total_steps`. Steps beyond the last keep the final rate;
/// `total_steps` is not looked at by the constant schedule.
double scheduled_lr(const OptimizerSection& optimizer, std::int64_t step, std::int64_t total_steps);

/// True when every step has the same rate.
bool is_flat(const ScheduleSection& schedule);

/// Throws ConfigError when warm-up and decay are longer than the run. A run of no steps is right.
void check_schedule(const ScheduleSection& schedule, std::int64_t total_steps);

}  // namespace caravan

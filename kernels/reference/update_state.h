// The decision on a step's update: see backend/update_state.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "caravan/backend/op_args.h"

namespace caravan::reference {

inline void prepare_update(const PrepareUpdateArgs& args) {
  const LossScalePolicy& policy = args.policy;
  UpdateState& state = *args.state;
  const double scale = state.loss_scale;
  state.grad_norm = std::sqrt(state.sum_squares) / scale;
  if (!std::isfinite(state.grad_norm) || !std::isfinite(state.loss_sum)) {
    state.is_skipped = 1;
    ++state.skipped;
    state.good_steps = 0;
    state.loss_scale = std::max(scale * policy.backoff, policy.least);
    return;
  }
  state.is_skipped = 0;
  ++state.updates;
  const double clip_factor = state.grad_norm > args.max_norm ? args.max_norm / state.grad_norm : 1.0;
  state.gradient_factor = clip_factor / scale;
  const auto t = static_cast<double>(state.updates);
  state.bias_correction1 = 1.0 - std::pow(args.beta1, t);
  state.bias_correction2_sqrt = std::sqrt(1.0 - std::pow(args.beta2, t));
  if (++state.good_steps >= policy.growth_interval) {
    state.good_steps = 0;
    state.loss_scale = std::min(scale * policy.growth, policy.most);
  }
}

}  // namespace caravan::reference

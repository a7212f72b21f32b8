// Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): see backend/loss_scale.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "caravan/backend/loss_scale.h"

namespace caravan::reference {

inline void update_loss_scale(const UpdateLossScaleArgs& args) {
  const LossScalePolicy& policy = args.policy;
  LossScale& state = *args.state;
  const double norm = std::sqrt(*args.sum_squares) / state.scale;
  if (!std::isfinite(norm)) {
    state.is_skipped = 1;
    ++state.skipped;
    state.good_steps = 0;
    state.scale = std::max(state.scale * policy.backoff, policy.least);
    return;
  }
  state.is_skipped = 0;
  ++state.updates;
  const double clip_factor = norm > args.max_norm ? args.max_norm / norm : 1.0;
  state.gradient_factor = clip_factor / state.scale;
  const auto t = static_cast<double>(state.updates);
  state.bias_correction1 = 1.0 - std::pow(args.beta1, t);
  state.bias_correction2_sqrt = std::sqrt(1.0 - std::pow(args.beta2, t));
  if (++state.good_steps == policy.growth_interval) {
    state.good_steps = 0;
    state.scale = std::min(state.scale * policy.growth, policy.most);
  }
}

}  // namespace caravan::reference

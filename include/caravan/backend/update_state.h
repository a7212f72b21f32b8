// What the update of a step depends on and is decided from, in the memory of whoever updates, so that nobody
// waits between gradients and weights: the step's sums, the decision, and dynamic loss scaling.
//
// Loss scaling is for gradients in float16, where small ones would be zeros (Micikevicius et al. 2018,
// section 3.2): the loss's gradient is multiplied by a scale and the update divides by it. A step whose
// gradients overflow is skipped and the scale falls; after many good steps it grows.
#pragma once

#include <cstdint>

namespace caravan {

/// How the scale changes; as it stands it stays at 1.
struct LossScalePolicy {
  double growth = 1.0;
  double backoff = 1.0;
  std::int64_t growth_interval = 2000;  // good steps in a row before the scale grows
  double least = 1.0;                   // steps that overflow with it are not a matter of the scale
  double most = 16777216.0;
};

struct UpdateState {
  // Of the step, added up by whoever computes it, over all ranks.
  double loss_sum = 0.0;     // Σ token losses
  double sum_squares = 0.0;  // Σ of the squares of all gradients, scaled as they are
  // Made of them by prepare_update.
  double grad_norm = 0.0;              // of the true gradients
  double gradient_factor = 1.0;        // multiplies every gradient in the update: clip factor / loss scale
  double bias_correction1 = 1.0;       // 1 - beta1^updates
  double bias_correction2_sqrt = 1.0;  // sqrt(1 - beta2^updates)
  std::int64_t is_skipped = 0;         // 1: loss or gradients are not finite, and the update does nothing
  // From step to step.
  double loss_scale = 1.0;      // of the gradients of the step that comes, or runs until prepare_update
  std::int64_t good_steps = 0;  // since the scale changed
  std::int64_t updates = 0;     // steps that were not skipped: t of the bias corrections
  std::int64_t skipped = 0;     // steps that were
};

}  // namespace caravan

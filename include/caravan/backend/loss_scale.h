// Dynamic loss scaling for gradients in float16 (Micikevicius et al. 2018, section 3.2). Small gradients
// would be zeros in float16, so the loss's gradient is multiplied by a scale and the update divides by it.
// When a gradient overflows, the step is skipped and the scale falls; after many good steps it grows. State
// and decision stay in the backend's memory: nobody waits for them.
#pragma once

#include <cstdint>

#include "caravan/backend/step_scalars.h"

namespace caravan {

struct LossScalePolicy {
  double growth = 2.0;
  double backoff = 0.5;
  std::int64_t growth_interval = 2000;  // good steps in a row before the scale grows
  double least = 1.0;
  double most = 16777216.0;
};

/// In the memory of the device that computes; zero-initialised but for the scale.
struct LossScale {
  double scale = 65536.0;         // of the gradients of the step that runs
  std::int64_t good_steps = 0;    // since the scale changed
  std::int64_t updates = 0;       // steps that were not skipped: t of the bias corrections
  std::int64_t skipped = 0;       // steps that were
  std::int64_t is_skipped = 0;    // 1: the step's gradients were not all finite, and the update does nothing
  double gradient_factor = 1.0;   // multiplies every gradient in the update: the clip factor over the scale
  double bias_correction1 = 1.0;  // 1 - beta1^updates
  double bias_correction2_sqrt = 1.0;  // sqrt(1 - beta2^updates)
};

/// Between the gradients of a step and their use: decides whether the step is skipped, prepares the update's
/// factors with the scale that the gradients have, and then changes the scale for the next step.
struct UpdateLossScaleArgs {
  const double* sum_squares = nullptr;  // [1] Σ of all squares of the scaled gradients, over all ranks
  double max_norm = 0.0;                // of the unscaled gradients; infinity: no clipping
  double beta1 = 0.0;
  double beta2 = 0.0;
  LossScalePolicy policy;
  LossScale* state = nullptr;
};

}  // namespace caravan

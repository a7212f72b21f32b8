// What the host changes from step to step, in one struct the backend reads when an op runs: no op takes a
// changing host scalar, so a step can be captured once and replayed. What follows from the step's gradients
// is in UpdateState.
#pragma once

#include <cstdint>

namespace caravan {

struct StepScalars {
  double lr = 0.0;
  double inv_valid_tokens = 1.0;  // divisor of the loss: 1 / (valid target tokens of the whole step)
  double loss_scale = 1.0;        // multiplies the loss's gradient: UpdateState::loss_scale
  std::uint64_t dropout_key = 0;  // of this step's masks: dropout_key() in ops/dropout.h
};

}  // namespace caravan

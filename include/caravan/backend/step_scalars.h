// Everything that changes from step to step, in one struct the backend reads when an op runs: no op takes a
// changing host scalar, so a step can be captured once and replayed.
#pragma once

#include <cstdint>

namespace caravan {

struct StepScalars {
  double lr = 0.0;
  double bias_correction1 = 1.0;       // 1 - beta1^t
  double bias_correction2_sqrt = 1.0;  // sqrt(1 - beta2^t)
  double clip_factor = 1.0;            // multiplies every gradient in the update
  double inv_valid_tokens = 1.0;       // divisor of the loss: 1 / (valid target tokens of the whole step)
  std::int64_t step = 0;               // 1 for the first update
  std::uint64_t dropout_key = 0;       // of this step's masks: dropout_key() in ops/dropout.h
};

}  // namespace caravan

#include "caravan/optim/clip.h"

#include <algorithm>
#include <cmath>

#include "caravan/ops/optimizer_step.h"

namespace caravan {

double global_norm(const Context& ctx, const ParameterSet& parameters) {
  double sum = 0.0;
  for (const Parameter& parameter : parameters.all()) {
    if (parameter.is_trainable()) {
      sum_squares(ctx, {.x = parameter.stored_grad(), .result = &sum});
    }
  }
  return std::sqrt(sum);
}

double clip_factor(double norm, std::optional<double> clip_norm) {
  return clip_norm && norm > *clip_norm ? *clip_norm / norm : 1.0;
}

}  // namespace caravan

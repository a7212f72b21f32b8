#include "caravan/optim/clip.h"

#include <algorithm>

#include "caravan/ops/optimizer_step.h"

namespace caravan {

double sum_squares_of_gradients(const Context& ctx, const std::vector<ParameterShard>& shards) {
  double sum = 0.0;
  for (const ParameterShard& shard : shards) {
    if (shard.parameter->is_trainable() && shard.is_first_copy) {
      sum_squares(ctx, {.x = shard.grad, .result = &sum});
    }
  }
  return sum;
}

double clip_factor(double norm, std::optional<double> clip_norm) {
  return clip_norm && norm > *clip_norm ? *clip_norm / norm : 1.0;
}

}  // namespace caravan

#include "caravan/optim/clip.h"

#include <algorithm>

#include "caravan/backend/device_memory.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/optimizer_step.h"

namespace caravan {

double sum_squares_of_gradients(const Context& ctx, const std::vector<ParameterShard>& shards) {
  const ArenaScope scope(ctx.scratch);
  const TensorView sum = ctx.scratch.allocate("gradient norm", DType::kFloat64, {1});
  zero(ctx, {.x = sum});
  for (const ParameterShard& shard : shards) {
    if (shard.parameter->is_trainable() && shard.is_first_copy) {
      sum_squares(ctx, {.x = shard.grad, .result = sum});
    }
  }
  return *HostCopy(sum).view().data<double>();
}

double clip_factor(double norm, std::optional<double> clip_norm) {
  return clip_norm && norm > *clip_norm ? *clip_norm / norm : 1.0;
}

}  // namespace caravan

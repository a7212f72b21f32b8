#include "caravan/parallel/vocab_reduce.h"

#include "caravan/ops/elementwise.h"
#include "caravan/ops/loss.h"

namespace caravan {

void ShardedVocab::reduce(Context& ctx, const TensorView& row_max, const TensorView& row_sum,
                          const TensorView& target_logit) const {
  const ArenaScope scope(ctx.scratch);
  const Shape rows = row_max.shape();
  const TensorView common_max = ctx.allocate_sums("common maximum", rows);
  const TensorView packed = ctx.allocate("packed sums", {2, rows[0]});
  const TensorView sums = packed.rows(0, 1).reshape(rows);
  const TensorView targets = packed.rows(1, 2).reshape(rows);

  copy(ctx, {.from = row_max, .to = common_max});
  tp_.all_reduce(common_max, ReduceOp::kMax);
  cross_entropy_rescale(ctx, {.common_max = common_max, .row_max = row_max, .row_sum = row_sum});
  copy(ctx, {.from = row_sum, .to = sums});
  copy(ctx, {.from = target_logit, .to = targets});
  tp_.all_reduce(packed);
  copy(ctx, {.from = sums, .to = row_sum});
  copy(ctx, {.from = targets, .to = target_logit});
}

}  // namespace caravan

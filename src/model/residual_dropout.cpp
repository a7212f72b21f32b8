#include "caravan/model/residual_dropout.h"

#include "caravan/ops/dropout.h"

namespace caravan {

void ResidualDropout::forward(Context& ctx, const TokenBatch& batch, const TensorView& y) const {
  if (ctx.dropout > 0.0) {
    apply(ctx, batch, y, y);
  }
}

TensorView ResidualDropout::backward(Context& ctx, const TokenBatch& batch, const TensorView& g) const {
  if (ctx.dropout == 0.0) {
    return g;
  }
  const TensorView dy = ctx.allocate("gradient behind dropout", g.shape());
  apply(ctx, batch, g, dy);
  return dy;
}

void ResidualDropout::apply(Context& ctx, const TokenBatch& batch, const TensorView& x,
                            const TensorView& y) const {
  CARAVAN_CHECK(batch.rows.defined(), "dropout, but the tokens' rows are not known");
  const std::int64_t begin = boundary_->stream_begin(batch.n_tokens());
  const std::int64_t end = begin + x.dim(0);
  dropout(ctx, {.x = x,
                .y = y,
                .rows = batch.rows.rows(begin, end),
                .places = batch.index.rows(begin, end),
                .site = number_,
                .rate = ctx.dropout,
                .scalars = &ctx.scalars});
}

}  // namespace caravan

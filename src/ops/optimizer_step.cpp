#include "caravan/ops/optimizer_step.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void adamw(const Context& ctx, const AdamwArgs& args) {
  const Shape& shape = args.param.shape();
  expect_real(ctx, "adamw", "param", args.param, shape);
  expect_real(ctx, "adamw", "grad", args.grad, shape);
  expect_real(ctx, "adamw", "m", args.m, shape);
  expect_real(ctx, "adamw", "v", args.v, shape);
  CARAVAN_CHECK(args.scalars != nullptr, "adamw: no step scalars");
  ctx.backend.adamw(args, ctx.stream);
}

void sum_squares(const Context& ctx, const SumSquaresArgs& args) {
  expect_real(ctx, "sum_squares", "x", args.x, args.x.shape());
  CARAVAN_CHECK(args.result != nullptr, "sum_squares: no result");
  ctx.backend.sum_squares(args, ctx.stream);
}

}  // namespace caravan

#include "caravan/ops/norm.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void rmsnorm_forward(const Context& ctx, const RmsNormForwardArgs& args) {
  const Shape x = matrix_shape("rmsnorm_forward", "x", args.x);
  expect_real(ctx, "rmsnorm_forward", "x", args.x, x);
  CARAVAN_CHECK(args.delta.defined() == args.sum.defined(), "rmsnorm_forward: delta and sum come together");
  if (args.delta.defined()) {
    expect_real(ctx, "rmsnorm_forward", "delta", args.delta, x);
    expect_real(ctx, "rmsnorm_forward", "sum", args.sum, x);
  }
  expect_real(ctx, "rmsnorm_forward", "weight", args.weight, {x[1]});
  expect_real(ctx, "rmsnorm_forward", "y", args.y, x);
  expect_sums(ctx, "rmsnorm_forward", "rstd", args.rstd, {x[0]});
  ctx.backend.rmsnorm_forward(args, ctx.stream);
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackwardArgs& args) {
  const Shape x = matrix_shape("rmsnorm_backward", "x", args.x);
  expect_real(ctx, "rmsnorm_backward", "dy", args.dy, x);
  expect_real(ctx, "rmsnorm_backward", "x", args.x, x);
  expect_real(ctx, "rmsnorm_backward", "weight", args.weight, {x[1]});
  expect_sums(ctx, "rmsnorm_backward", "rstd", args.rstd, {x[0]});
  expect_real(ctx, "rmsnorm_backward", "dx", args.dx, x);
  if (args.dweight.defined()) {
    expect_sums(ctx, "rmsnorm_backward", "dweight", args.dweight, {x[1]});
  }
  ctx.backend.rmsnorm_backward(args, ctx.stream);
}

}  // namespace caravan

#include "caravan/ops/optimizer_step.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void sum(const Context& ctx, const SumArgs& args) {
  expect_sums(ctx, "sum", "x", args.x, args.x.shape());
  expect(ctx, "sum", "result", args.result, DType::kFloat64, {1});
  ctx.backend.sum(args, ctx.stream);
}

void sum_squares(const Context& ctx, const SumSquaresArgs& args) {
  expect_sums(ctx, "sum_squares", "x", args.x, args.x.shape());
  expect(ctx, "sum_squares", "result", args.result, DType::kFloat64, {1});
  ctx.backend.sum_squares(args, ctx.stream);
}

void prepare_update(const Context& ctx, const PrepareUpdateArgs& args) {
  CARAVAN_CHECK(args.state != nullptr, "prepare_update: no state");
  ctx.backend.prepare_update(args, ctx.stream);
}

void adamw(const Context& ctx, const AdamwArgs& args) {
  const Shape& shape = args.param.shape();
  expect_real(ctx, "adamw", "param", args.param, shape);
  expect_sums(ctx, "adamw", "grad", args.grad, shape);
  expect_sums(ctx, "adamw", "m", args.m, shape);
  expect_sums(ctx, "adamw", "v", args.v, shape);
  if (args.master.defined()) {
    expect_sums(ctx, "adamw", "master", args.master, shape);
  }
  CARAVAN_CHECK(args.scalars != nullptr && args.state != nullptr, "adamw: no step scalars or no state");
  ctx.backend.adamw(args, ctx.stream);
}

}  // namespace caravan

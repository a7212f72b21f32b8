#include "caravan/ops/elementwise.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void add(const Context& ctx, const AddArgs& args) {
  expect_real(ctx, "add", "x", args.x, args.x.shape());
  expect_real(ctx, "add", "z", args.z, args.x.shape());
  expect_real(ctx, "add", "y", args.y, args.x.shape());
  ctx.backend.add(args, ctx.stream);
}

void scale(const Context& ctx, const ScaleArgs& args) {
  expect_real(ctx, "scale", "x", args.x, args.x.shape());
  ctx.backend.scale(args, ctx.stream);
}

void zero(const Context& ctx, const ZeroArgs& args) {
  CARAVAN_CHECK(args.x.defined() && args.x.is_contiguous(), "zero: x is {}", args.x.str());
  ctx.backend.zero(args, ctx.stream);
}

void copy(const Context& ctx, const CopyArgs& args) {
  CARAVAN_CHECK(args.from.defined() && args.to.defined() && args.from.shape() == args.to.shape(),
                "copy: from {} to {}", args.from.str(), args.to.str());
  ctx.backend.copy(args, ctx.stream);
}

void random_normal(const Context& ctx, const RandomNormalArgs& args) {
  expect_real(ctx, "random_normal", "y", args.y, args.y.shape());
  CARAVAN_CHECK(args.y.rank() >= 1 && args.global_cols > 0, "random_normal: y {}, {} global columns",
                args.y.str(), args.global_cols);
  ctx.backend.random_normal(args, ctx.stream);
}

}  // namespace caravan

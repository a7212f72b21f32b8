#include "caravan/ops/activation.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void swiglu_forward(const Context& ctx, const SwigluForwardArgs& args) {
  const Shape shape = matrix_shape("swiglu_forward", "gate", args.gate);
  expect_real(ctx, "swiglu_forward", "gate", args.gate, shape);
  expect_real(ctx, "swiglu_forward", "up", args.up, shape);
  expect_real(ctx, "swiglu_forward", "h", args.h, shape);
  ctx.backend.swiglu_forward(args, ctx.stream);
}

void swiglu_backward(const Context& ctx, const SwigluBackwardArgs& args) {
  const Shape shape = matrix_shape("swiglu_backward", "gate", args.gate);
  expect_real(ctx, "swiglu_backward", "dh", args.dh, shape);
  expect_real(ctx, "swiglu_backward", "gate", args.gate, shape);
  expect_real(ctx, "swiglu_backward", "up", args.up, shape);
  expect_real(ctx, "swiglu_backward", "dgate", args.dgate, shape);
  expect_real(ctx, "swiglu_backward", "dup", args.dup, shape);
  ctx.backend.swiglu_backward(args, ctx.stream);
}

}  // namespace caravan

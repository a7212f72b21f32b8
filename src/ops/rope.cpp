#include "caravan/ops/rope.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void rope(const Context& ctx, const RopeArgs& args) {
  const Shape x = matrix_shape("rope", "x", args.x);
  expect_real(ctx, "rope", "x", args.x, x);
  CARAVAN_CHECK(args.head_dim > 0 && args.head_dim % 2 == 0 && x[1] % args.head_dim == 0,
                "rope: head_dim {} with x {}", args.head_dim, x.str());
  const Shape table = matrix_shape("rope", "cos", args.cos);
  expect_sums(ctx, "rope", "cos", args.cos, {table[0], args.head_dim / 2});
  expect_sums(ctx, "rope", "sin", args.sin, {table[0], args.head_dim / 2});
  expect_int(ctx, "rope", "positions", args.positions, {x[0]});
  ctx.backend.rope(args, ctx.stream);
}

}  // namespace caravan

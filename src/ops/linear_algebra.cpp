#include "caravan/ops/linear_algebra.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void matmul_nt(const Context& ctx, const MatmulNtArgs& args) {
  const Shape a = matrix_shape("matmul_nt", "a", args.a);
  const Shape& b = weight_shape(args.b);
  CARAVAN_CHECK(b.rank() == 2 && b[1] == a[1], "matmul_nt: a {} with b {}", a.str(), b.str());
  expect_real(ctx, "matmul_nt", "a", args.a, a);
  expect_real(ctx, "matmul_nt", "c", args.c, {a[0], b[0]});
  ctx.backend.matmul_nt(args, ctx.stream);
  ctx.advance();
}

void matmul_nn(const Context& ctx, const MatmulNnArgs& args) {
  const Shape a = matrix_shape("matmul_nn", "a", args.a);
  const Shape& b = weight_shape(args.b);
  CARAVAN_CHECK(b.rank() == 2 && b[0] == a[1], "matmul_nn: a {} with b {}", a.str(), b.str());
  expect_real(ctx, "matmul_nn", "a", args.a, a);
  expect_real(ctx, "matmul_nn", "c", args.c, {a[0], b[1]});
  ctx.backend.matmul_nn(args, ctx.stream);
  ctx.advance();
}

void matmul_tn(const Context& ctx, const MatmulTnArgs& args) {
  const Shape a = matrix_shape("matmul_tn", "a", args.a);
  const Shape b = matrix_shape("matmul_tn", "b", args.b);
  CARAVAN_CHECK(a[0] == b[0], "matmul_tn: a {} with b {}", a.str(), b.str());
  expect_real(ctx, "matmul_tn", "a", args.a, a);
  expect_real(ctx, "matmul_tn", "b", args.b, b);
  expect_sums(ctx, "matmul_tn", "c", args.c, {a[1], b[1]});
  ctx.backend.matmul_tn(args, ctx.stream);
  ctx.advance();
}

}  // namespace caravan

#include "caravan/ops/loss.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

void cross_entropy(const Context& ctx, const CrossEntropyArgs& args) {
  const Shape logits = matrix_shape("cross_entropy", "logits", args.logits);
  expect_real(ctx, "cross_entropy", "logits", args.logits, logits);
  expect_int(ctx, "cross_entropy", "targets", args.targets, {logits[0]});
  expect(ctx, "cross_entropy", "target_weights", args.target_weights, DType::kFloat32, {logits[0]});
  expect_sums(ctx, "cross_entropy", "losses", args.losses, {logits[0]});
  CARAVAN_CHECK(args.scalars != nullptr || args.logits_after == LogitsAfter::kKept,
                "cross_entropy: no step scalars");
  ctx.backend.cross_entropy(args, ctx.stream);
}

void cross_entropy_stats(const Context& ctx, const CrossEntropyStatsArgs& args) {
  const Shape logits = matrix_shape("cross_entropy_stats", "logits", args.logits);
  expect_real(ctx, "cross_entropy_stats", "logits", args.logits, logits);
  expect_int(ctx, "cross_entropy_stats", "targets", args.targets, {logits[0]});
  expect_sums(ctx, "cross_entropy_stats", "row_max", args.row_max, {logits[0]});
  expect_sums(ctx, "cross_entropy_stats", "row_sum", args.row_sum, {logits[0]});
  expect_sums(ctx, "cross_entropy_stats", "target_logit", args.target_logit, {logits[0]});
  ctx.backend.cross_entropy_stats(args, ctx.stream);
}

void cross_entropy_rescale(const Context& ctx, const CrossEntropyRescaleArgs& args) {
  const Shape& rows = args.row_sum.shape();
  expect_sums(ctx, "cross_entropy_rescale", "common_max", args.common_max, rows);
  expect_sums(ctx, "cross_entropy_rescale", "row_max", args.row_max, rows);
  expect_sums(ctx, "cross_entropy_rescale", "row_sum", args.row_sum, rows);
  ctx.backend.cross_entropy_rescale(args, ctx.stream);
}

void cross_entropy_loss(const Context& ctx, const CrossEntropyLossArgs& args) {
  const Shape& rows = args.losses.shape();
  expect_sums(ctx, "cross_entropy_loss", "row_max", args.row_max, rows);
  expect_sums(ctx, "cross_entropy_loss", "row_sum", args.row_sum, rows);
  expect_sums(ctx, "cross_entropy_loss", "target_logit", args.target_logit, rows);
  expect(ctx, "cross_entropy_loss", "target_weights", args.target_weights, DType::kFloat32, rows);
  expect_sums(ctx, "cross_entropy_loss", "lse", args.lse, rows);
  expect_sums(ctx, "cross_entropy_loss", "losses", args.losses, rows);
  ctx.backend.cross_entropy_loss(args, ctx.stream);
}

void cross_entropy_backward(const Context& ctx, const CrossEntropyBackwardArgs& args) {
  const Shape logits = matrix_shape("cross_entropy_backward", "logits", args.logits);
  expect_real(ctx, "cross_entropy_backward", "logits", args.logits, logits);
  expect_int(ctx, "cross_entropy_backward", "targets", args.targets, {logits[0]});
  expect(ctx, "cross_entropy_backward", "target_weights", args.target_weights, DType::kFloat32, {logits[0]});
  expect_sums(ctx, "cross_entropy_backward", "lse", args.lse, {logits[0]});
  CARAVAN_CHECK(args.scalars != nullptr, "cross_entropy_backward: no step scalars");
  ctx.backend.cross_entropy_backward(args, ctx.stream);
}

}  // namespace caravan

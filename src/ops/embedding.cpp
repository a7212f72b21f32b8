#include "caravan/ops/embedding.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

namespace {

void expect_part(const char* op, const TensorView& table, std::int64_t vocab_begin, std::int64_t vocab_size) {
  const std::int64_t all = vocab_size > 0 ? vocab_size : table.dim(0);
  CARAVAN_CHECK(vocab_begin >= 0 && vocab_begin + table.dim(0) <= all, "{}: {} from row {} of {}", op,
                table.str(), vocab_begin, all);
}

}  // namespace

void embedding_forward(const Context& ctx, const EmbeddingForwardArgs& args) {
  const Shape weight = matrix_shape("embedding_forward", "weight", args.weight);
  const Shape y = matrix_shape("embedding_forward", "y", args.y);
  expect_real(ctx, "embedding_forward", "weight", args.weight, weight);
  expect_real(ctx, "embedding_forward", "y", args.y, {y[0], weight[1]});
  expect_part("embedding_forward", args.weight, args.vocab_begin, args.vocab_size);
  expect_int(ctx, "embedding_forward", "ids", args.ids, {y[0]});
  ctx.backend.embedding_forward(args, ctx.stream);
}

void embedding_backward(const Context& ctx, const EmbeddingBackwardArgs& args) {
  const Shape dweight = matrix_shape("embedding_backward", "dweight", args.dweight);
  const Shape dy = matrix_shape("embedding_backward", "dy", args.dy);
  expect_sums(ctx, "embedding_backward", "dweight", args.dweight, dweight);
  expect_real(ctx, "embedding_backward", "dy", args.dy, {dy[0], dweight[1]});
  expect_part("embedding_backward", args.dweight, args.vocab_begin, args.vocab_size);
  expect_int(ctx, "embedding_backward", "ids", args.ids, {dy[0]});
  ctx.backend.embedding_backward(args, ctx.stream);
  ctx.advance();
}

}  // namespace caravan

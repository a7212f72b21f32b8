#include "caravan/ops/attention.h"

#include "check.h"

namespace caravan {

using namespace ops_detail;

namespace {

void expect_operands(const Context& ctx, const char* op, const AttentionShape& shape,
                     const AttentionMask& mask, const TensorView& q, const TensorView& k,
                     const TensorView& v) {
  CARAVAN_CHECK(shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0,
                "{}: {} heads over {} kv heads", op, shape.n_heads, shape.n_kv_heads);
  const std::int64_t queries = shape.batch * shape.query_len;
  const std::int64_t keys = shape.batch * shape.key_len;
  expect_real(ctx, op, "q", q, {queries, shape.n_heads * shape.head_dim});
  expect_real(ctx, op, "k", k, {keys, shape.n_kv_heads * shape.head_dim});
  expect_real(ctx, op, "v", v, {keys, shape.n_kv_heads * shape.head_dim});
  expect_int(ctx, op, "query_index", mask.query_index, {queries});
  expect_int(ctx, op, "key_index", mask.key_index, {keys});
  expect_int(ctx, op, "document_start", mask.document_start, {queries});
}

}  // namespace

void attention_forward(const Context& ctx, const AttentionForwardArgs& args) {
  expect_operands(ctx, "attention_forward", args.shape, args.mask, args.q, args.k, args.v);
  expect_real(ctx, "attention_forward", "o", args.o, args.q.shape());
  expect_sums(ctx, "attention_forward", "lse", args.lse, {args.shape.n_heads, args.q.dim(0)});
  ctx.backend.attention_forward(args, ctx.stream);
  ctx.advance();
}

void attention_backward(const Context& ctx, const AttentionBackwardArgs& args) {
  expect_operands(ctx, "attention_backward", args.shape, args.mask, args.q, args.k, args.v);
  expect_real(ctx, "attention_backward", "o", args.o, args.q.shape());
  expect_sums(ctx, "attention_backward", "lse", args.lse, {args.shape.n_heads, args.q.dim(0)});
  expect_real(ctx, "attention_backward", "d_o", args.d_o, args.q.shape());
  expect_real(ctx, "attention_backward", "dq", args.dq, args.q.shape());
  expect_real(ctx, "attention_backward", "dk", args.dk, args.k.shape());
  expect_real(ctx, "attention_backward", "dv", args.dv, args.v.shape());
  ctx.backend.attention_backward(args, ctx.stream);
  ctx.advance();
}

void attention_merge(const Context& ctx, const AttentionMergeArgs& args) {
  const Shape o = matrix_shape("attention_merge", "o", args.o);
  const Shape lse = matrix_shape("attention_merge", "lse", args.lse);
  CARAVAN_CHECK(lse[1] == o[0] && lse[0] > 0 && o[1] % lse[0] == 0, "attention_merge: o is {}, lse is {}",
                args.o.str(), args.lse.str());
  expect_real(ctx, "attention_merge", "o", args.o, o);
  expect_sums(ctx, "attention_merge", "lse", args.lse, lse);
  expect_real(ctx, "attention_merge", "o_part", args.o_part, o);
  expect_sums(ctx, "attention_merge", "lse_part", args.lse_part, lse);
  ctx.backend.attention_merge(args, ctx.stream);
}

}  // namespace caravan

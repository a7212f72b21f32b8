#include "caravan/model/lm_head.h"

#include <algorithm>

#include "caravan/ops/elementwise.h"
#include "caravan/ops/loss.h"

namespace caravan {

struct LmHead::Slots final : Saved {
  NormEntrySlots entry;
  void visit_slots(const Visitor& visitor) override { entry.visit(visitor); }
};

std::vector<int> LmHead::groups() const {
  const int output_group = output_.weight().spec().group;
  return output_group == norm_group_ ? std::vector<int>{norm_group_}
                                     : std::vector<int>{norm_group_, output_group};
}

std::int64_t LmHead::chunk_tokens(std::int64_t vocab_size, std::int64_t tokens, DeviceKind kind,
                                  DType dtype) {
  // 64 MiB of float32 on CPUs. A GPU needs thousands of rows for a fast product, and reads and writes the
  // weight's whole gradient once a chunk: 1 GiB, of bfloat16 4186 rows of Llama 3's vocabulary.
  const std::int64_t most_logits =
      kind == DeviceKind::kCuda ? (std::int64_t{1} << 30U) / static_cast<std::int64_t>(dtype_bytes(dtype))
                                : std::int64_t{1} << 24U;
  constexpr std::int64_t kLeast = 64;  // fewer rows make the products slow
  return std::min(tokens, std::max(kLeast, most_logits / std::max<std::int64_t>(vocab_size, 1)));
}

/// One chunk of tokens between its two products.
struct LmHead::Chunk {
  TensorView logits;          // [C, V], V local
  TensorView targets;         // [C]
  TensorView target_weights;  // [C]
  TensorView losses;          // [C]
};

void LmHead::cross_entropy_over_ranks(Context& ctx, const Chunk& chunk, LogitsAfter after) const {
  const Shape& rows = chunk.losses.shape();
  const TensorView row_max = ctx.allocate_sums("row_max", rows);
  const TensorView row_sum = ctx.allocate_sums("row_sum", rows);
  const TensorView target_logit = ctx.allocate_sums("target_logit", rows);
  const TensorView lse = ctx.allocate_sums("lse", rows);
  cross_entropy_stats(ctx, {.logits = chunk.logits,
                            .targets = chunk.targets,
                            .vocab_begin = vocab_.vocab_begin(),
                            .row_max = row_max,
                            .row_sum = row_sum,
                            .target_logit = target_logit});
  vocab_.reduce(ctx, row_max, row_sum, target_logit);
  cross_entropy_loss(ctx, {.row_max = row_max,
                           .row_sum = row_sum,
                           .target_logit = target_logit,
                           .target_weights = chunk.target_weights,
                           .lse = lse,
                           .losses = chunk.losses});
  if (after == LogitsAfter::kGradient) {
    cross_entropy_backward(ctx, {.logits = chunk.logits,
                                 .targets = chunk.targets,
                                 .target_weights = chunk.target_weights,
                                 .lse = lse,
                                 .vocab_begin = vocab_.vocab_begin(),
                                 .scalars = &ctx.scalars});
  }
}

void LmHead::visit_chunks(Context& ctx, const TokenBatch& batch, const TensorView& full,
                          const TensorView& losses, const TensorView* dfull) const {
  const std::int64_t tokens = full.dim(0);
  const LogitsAfter after = dfull != nullptr ? LogitsAfter::kGradient : LogitsAfter::kKept;
  // By the whole vocabulary, since all ranks that share it must cut alike.
  const std::int64_t step =
      chunk_tokens(output_.weight().spec().shape[0], tokens, ctx.backend.kind(), ctx.dtype);
  for (std::int64_t begin = 0; begin < tokens; begin += step) {
    const ArenaScope scope(ctx.scratch);
    const std::int64_t end = std::min(begin + step, tokens);
    const TensorView x = full.rows(begin, end);
    const Chunk chunk{.logits = ctx.allocate("logits", {end - begin, output_.out_features()}),
                      .targets = batch.targets.rows(begin, end),
                      .target_weights = batch.target_weights.rows(begin, end),
                      .losses = losses.rows(begin, end)};
    output_.forward(ctx, x, chunk.logits);
    if (vocab_.is_whole()) {
      cross_entropy(ctx, {.logits = chunk.logits,
                          .targets = chunk.targets,
                          .target_weights = chunk.target_weights,
                          .losses = chunk.losses,
                          .logits_after = after,
                          .scalars = &ctx.scalars});
    } else {
      cross_entropy_over_ranks(ctx, chunk, after);
    }
    if (dfull != nullptr) {
      output_.backward_input(ctx, chunk.logits, dfull->rows(begin, end));
      output_.backward_weight(ctx, x, chunk.logits);
    }
  }
}

void LmHead::loss(Context& ctx, const TokenBatch& batch, ResidualStream& stream,
                  const TensorView& losses) const {
  const ArenaScope scope(ctx.scratch);
  Slots s;
  s.begin(nullptr, SavePolicy::inference());
  entry_.take(ctx, stream, s, s.entry);
  visit_chunks(ctx, batch, s.entry.full.view, losses, nullptr);
}

void LmHead::loss_and_backward(Context& ctx, const TokenBatch& batch, ResidualStream& stream,
                               const TensorView& losses, const TensorView& g) const {
  const ArenaScope scope(ctx.scratch);
  Slots s;
  // The sum goes to scratch: the stream's x is the last segment's saved input and must stay.
  s.begin(nullptr, SavePolicy::none());
  entry_.take(ctx, stream, s, s.entry);
  const TensorView dnormed = ctx.allocate("d(final norm)", g.shape());
  const TensorView dfull = entry_.boundary().partial_buffer(ctx, dnormed);
  visit_chunks(ctx, batch, s.entry.full.view, losses, &dfull);
  entry_.boundary().enter_backward(ctx, dfull, dnormed).wait();
  zero(ctx, {.x = g});
  entry_.backward(ctx, dnormed, g, s.entry);
}

void LmHead::logits(Context& ctx, ResidualStream& stream, std::int64_t begin, std::int64_t end,
                    const TensorView& logits) const {
  const ArenaScope scope(ctx.scratch);
  Slots s;
  s.begin(nullptr, SavePolicy::inference());
  entry_.take(ctx, stream, s, s.entry);
  output_.forward(ctx, s.entry.full.view.rows(begin, end), logits);
}

}  // namespace caravan

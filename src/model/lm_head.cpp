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

std::int64_t LmHead::chunk_tokens(std::int64_t vocab_size, std::int64_t tokens, DType dtype) {
  // 64 MiB of float32. 16-bit logits are a GPU's, which needs thousands of rows for a fast product and reads
  // and writes the weight's whole gradient once a chunk: 1 GiB, 4186 rows of Llama 3's vocabulary.
  const bool is_for_gpus = accumulation_dtype(dtype) != dtype;
  const std::int64_t most_logits = std::int64_t{1} << (is_for_gpus ? 29U : 24U);
  constexpr std::int64_t kLeast = 64;  // fewer rows make the products slow
  return std::min(tokens, std::max(kLeast, most_logits / std::max<std::int64_t>(vocab_size, 1)));
}

void LmHead::visit_chunks(Context& ctx, const TokenBatch& batch, const TensorView& full,
                          const TensorView& losses, const TensorView* dfull) const {
  const std::int64_t tokens = full.dim(0);
  // By the whole vocabulary, since all ranks that share it must cut alike.
  const std::int64_t chunk = chunk_tokens(output_.weight().spec().shape[0], tokens, ctx.dtype);
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const ArenaScope scope(ctx.scratch);
    const std::int64_t end = std::min(begin + chunk, tokens);
    const Shape rows = {end - begin};
    const TensorView logits = ctx.allocate("logits", {end - begin, output_.out_features()});
    const TensorView row_max = ctx.allocate_sums("row_max", rows);
    const TensorView row_sum = ctx.allocate_sums("row_sum", rows);
    const TensorView target_logit = ctx.allocate_sums("target_logit", rows);
    const TensorView lse = ctx.allocate_sums("lse", rows);
    const TensorView x = full.rows(begin, end);
    const TensorView targets = batch.targets.rows(begin, end);
    const TensorView weights = batch.target_weights.rows(begin, end);

    output_.forward(ctx, x, logits);
    cross_entropy_stats(ctx, {.logits = logits,
                              .targets = targets,
                              .vocab_begin = vocab_.vocab_begin(),
                              .row_max = row_max,
                              .row_sum = row_sum,
                              .target_logit = target_logit});
    vocab_.reduce(ctx, row_max, row_sum, target_logit);
    cross_entropy_loss(ctx, {.row_max = row_max,
                             .row_sum = row_sum,
                             .target_logit = target_logit,
                             .target_weights = weights,
                             .lse = lse,
                             .losses = losses.rows(begin, end)});
    if (dfull == nullptr) {
      continue;
    }
    cross_entropy_backward(ctx, {.logits = logits,
                                 .targets = targets,
                                 .target_weights = weights,
                                 .lse = lse,
                                 .vocab_begin = vocab_.vocab_begin(),
                                 .scalars = &ctx.scalars});
    output_.backward_input(ctx, logits, dfull->rows(begin, end));
    output_.backward_weight(ctx, x, logits);
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

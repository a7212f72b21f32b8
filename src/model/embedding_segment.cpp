#include "caravan/model/embedding_segment.h"

#include "caravan/ops/embedding.h"

namespace caravan {
namespace {

struct EmbeddingSaved final : Saved {
  Slot x{"embedding", SlotClass::kInput, {}};  // [T_stream, D]
  void visit_slots(const Visitor& visitor) override { visitor(x); }
};

}  // namespace

std::unique_ptr<Saved> EmbeddingSegment::make_saved() const {
  return std::make_unique<EmbeddingSaved>();
}

void EmbeddingSegment::forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream,
                               Saved& saved) const {
  auto& slots = static_cast<EmbeddingSaved&>(saved);
  if (saved.keeps(SlotClass::kInput)) {
    const std::int64_t tokens = boundary_->stream_tokens(batch.n_tokens());
    stream.x = saved.fill(ctx, slots.x, ctx.dtype, {tokens, weight_->shape()[1]});
  }
  const TensorView partial = boundary_->partial_buffer(ctx, stream.x);
  embedding_forward(ctx, {.weight = weight_->value(),
                          .ids = batch.ids,
                          .y = partial,
                          .vocab_begin = weight_->region()[0].begin,
                          .vocab_size = weight_->spec().shape[0]});
  boundary_->leave(ctx, partial, stream.x).wait();
  stream.has_delta = false;
  ctx.observe("tok_embeddings", stream.x);
}

void EmbeddingSegment::finish_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                                    Saved& /*saved*/) const {
  if (weight_->is_trainable()) {
    const auto allocate = [&](const Shape& shape) { return ctx.allocate("embedding gradient", shape); };
    embedding_backward(ctx, {.dy = boundary_->leave_backward(ctx, g, allocate),
                             .ids = batch.ids,
                             .dweight = weight_->grad(),
                             .vocab_begin = weight_->region()[0].begin,
                             .vocab_size = weight_->spec().shape[0]});
  }
}

}  // namespace caravan

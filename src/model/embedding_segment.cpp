#include "caravan/model/embedding_segment.h"

#include "caravan/ops/embedding.h"

namespace caravan {
namespace {

struct EmbeddingSaved final : Saved {
  Slot x{"embedding", SlotClass::kInput, {}};  // [T, D]
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
    stream.x = saved.fill(ctx, slots.x, ctx.dtype, {batch.n_tokens(), weight_->shape()[1]});
  }
  embedding_forward(ctx, {.weight = weight_->value(), .ids = batch.ids, .y = stream.x});
  stream.has_delta = false;
  ctx.observe(weight_->name(), stream.x);
}

void EmbeddingSegment::finish_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                                    Saved& /*saved*/) const {
  if (weight_->is_trainable()) {
    embedding_backward(ctx, {.dy = g, .ids = batch.ids, .dweight = weight_->grad()});
  }
}

}  // namespace caravan

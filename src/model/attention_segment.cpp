#include "caravan/model/attention_segment.h"

#include "caravan/ops/rope.h"

namespace caravan {

struct AttentionSegment::Slots final : Saved {
  NormEntrySlots entry;
  Slot q{"q", SlotClass::kCostly, {}};      // [T, H·E] rotated
  Slot k{"k", SlotClass::kCostly, {}};      // [T, G·E] rotated
  Slot v{"v", SlotClass::kCostly, {}};      // [T, G·E]
  Slot o{"o", SlotClass::kCostly, {}};      // [T, H·E]
  Slot lse{"lse", SlotClass::kCostly, {}};  // [H, T]
  TensorView dy_full, dq, dk, dv, dnormed;  // between backward_input and finish_input

  void visit_slots(const Visitor& visitor) override {
    entry.visit(visitor);
    for (Slot* slot : {&q, &k, &v, &o, &lse}) {
      visitor(*slot);
    }
  }
};

AttentionSegment::AttentionSegment(const Parts& parts)
    : entry_(parts.norm, parts.eps, parts.boundary),
      dropout_(parts.layer, ResidualDropout::Site::kAttention, parts.boundary),
      wq_(parts.wq),
      wk_(parts.wk),
      wv_(parts.wv),
      wo_(parts.wo),
      rope_(&parts.rope),
      core_(&parts.core),
      head_dim_(parts.head_dim),
      layer_(parts.layer) {}

std::unique_ptr<Saved> AttentionSegment::make_saved() const {
  return std::make_unique<Slots>();
}

AttentionCall AttentionSegment::call(const TokenBatch& batch) const {
  return {.batch = batch,
          .layer = layer_,
          .n_heads = wq_.out_features() / head_dim_,
          .n_kv_heads = wk_.out_features() / head_dim_,
          .head_dim = head_dim_};
}

void AttentionSegment::rotate(Context& ctx, const TokenBatch& batch, const TensorView& x,
                              RopeDirection direction) const {
  rope(ctx, {.x = x,
             .positions = batch.positions,
             .cos = rope_->cos(),
             .sin = rope_->sin(),
             .head_dim = head_dim_,
             .direction = direction});
}

void AttentionSegment::materialise(Context& ctx, const TokenBatch& batch, Slots& s) const {
  entry_.materialise(ctx, s, s.entry);
  const TensorView& x = s.entry.full.view;
  const std::int64_t tokens = x.dim(0);
  const auto project = [&](const Linear& linear, Slot& slot) {
    const bool absent = !slot.view.defined();
    if (absent) {
      linear.forward(ctx, x, s.fill(ctx, slot, ctx.dtype, {tokens, linear.out_features()}));
    }
    return absent;
  };
  if (project(wq_, s.q)) {
    rotate(ctx, batch, s.q.view, RopeDirection::kForward);
  }
  if (project(wk_, s.k)) {
    rotate(ctx, batch, s.k.view, RopeDirection::kForward);
  }
  project(wv_, s.v);
  if (!s.o.view.defined()) {
    s.fill(ctx, s.o, ctx.dtype, s.q.view.shape());
    s.fill(ctx, s.lse, accumulation_dtype(ctx.dtype), {wq_.out_features() / head_dim_, tokens});
    core_->forward(ctx, call(batch), s.q.view, s.k.view, s.v.view, s.o.view, s.lse.view);
  }
}

void AttentionSegment::forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream,
                               Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  entry_.take(ctx, stream, s, s.entry);
  materialise(ctx, batch, s);
  const TensorView partial = entry_.boundary().partial_buffer(ctx, stream.delta);
  wo_.forward(ctx, s.o.view, partial);
  entry_.boundary().leave(ctx, partial, stream.delta).wait();
  dropout_.forward(ctx, batch, stream.delta);
  stream.has_delta = true;
  ctx.observe(wo_.segment_name(), stream.delta);
}

void AttentionSegment::backward_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                                      Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  materialise(ctx, batch, s);
  const auto allocate = [&](const Shape& shape) { return ctx.allocate("attention gradient", shape); };
  s.dy_full = entry_.boundary().leave_backward(ctx, dropout_.backward(ctx, batch, g), allocate);
  s.dq = allocate(s.q.view.shape());
  s.dk = allocate(s.k.view.shape());
  s.dv = allocate(s.v.view.shape());
  s.dnormed = allocate(s.entry.normed.view.shape());
  {
    const ArenaScope scope(ctx.scratch);
    const TensorView d_o = allocate(s.o.view.shape());
    wo_.backward_input(ctx, s.dy_full, d_o);
    core_->backward(ctx, call(batch),
                    {.q = s.q.view,
                     .k = s.k.view,
                     .v = s.v.view,
                     .o = s.o.view,
                     .lse = s.lse.view,
                     .d_o = d_o,
                     .dq = s.dq,
                     .dk = s.dk,
                     .dv = s.dv});
  }
  rotate(ctx, batch, s.dq, RopeDirection::kBackward);
  rotate(ctx, batch, s.dk, RopeDirection::kBackward);
  const TensorView dx = entry_.boundary().partial_buffer(ctx, s.dnormed);
  wq_.backward_input(ctx, s.dq, dx);
  wk_.backward_input(ctx, s.dk, dx, Accumulate::kAdd);
  wv_.backward_input(ctx, s.dv, dx, Accumulate::kAdd);
  s.pending = entry_.boundary().enter_backward(ctx, dx, s.dnormed);
}

void AttentionSegment::backward_weight(Context& ctx, const TokenBatch& /*batch*/, Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  wo_.backward_weight(ctx, s.o.view, s.dy_full);
  wq_.backward_weight(ctx, s.entry.full.view, s.dq);
  wk_.backward_weight(ctx, s.entry.full.view, s.dk);
  wv_.backward_weight(ctx, s.entry.full.view, s.dv);
}

void AttentionSegment::finish_input(Context& ctx, const TokenBatch& /*batch*/, const TensorView& g,
                                    Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  s.pending.wait();
  entry_.backward(ctx, s.dnormed, g, s.entry);
}

}  // namespace caravan

#include "caravan/model/mlp_segment.h"

#include "caravan/ops/activation.h"

namespace caravan {

struct MlpSegment::Slots final : Saved {
  NormEntrySlots entry;
  Slot gate{"gate", SlotClass::kCostly, {}};  // [T, F]
  Slot up{"up", SlotClass::kCostly, {}};      // [T, F]
  Slot h{"h", SlotClass::kCheap, {}};         // [T, F]
  TensorView dy_full, dgate, dup, dnormed;    // between backward_input and finish_input

  void visit_slots(const Visitor& visitor) override {
    entry.visit(visitor);
    for (Slot* slot : {&gate, &up, &h}) {
      visitor(*slot);
    }
  }
};

std::unique_ptr<Saved> MlpSegment::make_saved() const {
  return std::make_unique<Slots>();
}

void MlpSegment::materialise(Context& ctx, Slots& s) const {
  entry_.materialise(ctx, s, s.entry);
  const TensorView& x = s.entry.full.view;
  const Shape shape = {x.dim(0), w1_.out_features()};
  if (!s.gate.view.defined()) {
    w1_.forward(ctx, x, s.fill(ctx, s.gate, ctx.dtype, shape));
  }
  if (!s.up.view.defined()) {
    w3_.forward(ctx, x, s.fill(ctx, s.up, ctx.dtype, shape));
  }
  if (!s.h.view.defined()) {
    s.fill(ctx, s.h, ctx.dtype, shape);
    swiglu_forward(ctx, {.gate = s.gate.view, .up = s.up.view, .h = s.h.view});
  }
}

void MlpSegment::forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream, Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  entry_.take(ctx, stream, s, s.entry);
  materialise(ctx, s);
  const TensorView partial = entry_.boundary().partial_buffer(ctx, stream.delta);
  w2_.forward(ctx, s.h.view, partial);
  entry_.boundary().leave(ctx, partial, stream.delta).wait();
  dropout_.forward(ctx, batch, stream.delta);
  stream.has_delta = true;
  ctx.observe(w2_.segment_name(), stream.delta);
}

void MlpSegment::backward_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                                Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  materialise(ctx, s);
  const auto allocate = [&](const Shape& shape) { return ctx.allocate("mlp gradient", shape); };
  const Shape shape = s.h.view.shape();
  s.dy_full = entry_.boundary().leave_backward(ctx, dropout_.backward(ctx, batch, g), allocate);
  s.dgate = allocate(shape);
  s.dup = allocate(shape);
  s.dnormed = allocate(s.entry.normed.view.shape());
  {
    const ArenaScope scope(ctx.scratch);
    const TensorView dh = allocate(shape);
    w2_.backward_input(ctx, s.dy_full, dh);
    swiglu_backward(ctx, {.dh = dh, .gate = s.gate.view, .up = s.up.view, .dgate = s.dgate, .dup = s.dup});
  }
  const TensorView dx = entry_.boundary().partial_buffer(ctx, s.dnormed);
  w1_.backward_input(ctx, s.dgate, dx);
  w3_.backward_input(ctx, s.dup, dx, Accumulate::kAdd);
  s.pending = entry_.boundary().enter_backward(ctx, dx, s.dnormed);
}

void MlpSegment::backward_weight(Context& ctx, const TokenBatch& /*batch*/, Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  w2_.backward_weight(ctx, s.h.view, s.dy_full);
  w1_.backward_weight(ctx, s.entry.full.view, s.dgate);
  w3_.backward_weight(ctx, s.entry.full.view, s.dup);
}

void MlpSegment::finish_input(Context& ctx, const TokenBatch& /*batch*/, const TensorView& g,
                              Saved& saved) const {
  auto& s = static_cast<Slots&>(saved);
  s.pending.wait();
  entry_.backward(ctx, s.dnormed, g, s.entry);
}

}  // namespace caravan

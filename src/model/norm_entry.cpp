#include "caravan/model/norm_entry.h"

#include "caravan/ops/norm.h"

namespace caravan {

void NormEntry::take(Context& ctx, ResidualStream& stream, Saved& saved, NormEntrySlots& slots) const {
  const Shape shape = stream.x.shape();
  const TensorView before = stream.x;
  if (!stream.has_delta) {
    slots.x.view = stream.x;
    slots.x.is_kept = true;
  } else if (saved.keeps(SlotClass::kInput)) {
    stream.x = saved.fill(ctx, slots.x, ctx.dtype, shape);
  } else {
    slots.x.view = stream.x;  // inference: in place
    slots.x.is_kept = false;
  }
  saved.fill(ctx, slots.normed, ctx.dtype, shape);
  saved.fill(ctx, slots.rstd, accumulation_dtype(ctx.dtype), {shape[0]});
  rmsnorm_forward(ctx, {.x = before,
                        .delta = stream.has_delta ? stream.delta : TensorView(),
                        .sum = stream.has_delta ? slots.x.view : TensorView(),
                        .weight = weight_->value(),
                        .eps = eps_,
                        .y = slots.normed.view,
                        .rstd = slots.rstd.view});
  stream.has_delta = false;
  materialise(ctx, saved, slots);
}

void NormEntry::materialise(Context& ctx, Saved& saved, NormEntrySlots& slots) const {
  if (slots.full.view.defined()) {
    return;
  }
  if (!slots.normed.view.defined()) {
    const Shape shape = slots.x.view.shape();
    saved.fill(ctx, slots.normed, ctx.dtype, shape);
    // A kept rstd is written again with the same bits.
    if (!slots.rstd.view.defined()) {
      saved.fill(ctx, slots.rstd, accumulation_dtype(ctx.dtype), {shape[0]});
    }
    rmsnorm_forward(ctx, {.x = slots.x.view,
                          .delta = {},
                          .sum = {},
                          .weight = weight_->value(),
                          .eps = eps_,
                          .y = slots.normed.view,
                          .rstd = slots.rstd.view});
  }
  // One reference: a std::function of more than two allocates, and nothing may inside a step.
  struct Fill {
    Context& ctx;
    Saved& saved;
    Slot& full;
  } const to = {ctx, saved, slots.full};
  slots.full.view = boundary_->enter(ctx, slots.normed.view, [&to](const Shape& shape) {
    return to.saved.fill(to.ctx, to.full, to.ctx.dtype, shape);
  });
}

void NormEntry::backward(Context& ctx, const TensorView& dnormed, const TensorView& g,
                         const NormEntrySlots& slots) const {
  rmsnorm_backward(ctx, {.dy = dnormed,
                         .x = slots.x.view,
                         .weight = weight_->value(),
                         .rstd = slots.rstd.view,
                         .dx = g,
                         .dweight = weight_->is_trainable() ? weight_->grad() : TensorView()});
}

}  // namespace caravan

#include "caravan/model/saved.h"

namespace caravan {

void Saved::begin(Arena* arena, SavePolicy policy) {
  arena_ = arena;
  policy_ = policy;
  mark_ = arena != nullptr ? arena->mark() : 0;
  is_forward_ = true;
}

void Saved::forget_scratch() {
  is_forward_ = false;
  visit_slots([](Slot& slot) {
    if (!slot.is_kept) {
      slot.view = {};
    }
  });
}

void Saved::finish() {
  visit_slots([](Slot& slot) {
    slot.view = {};
    slot.is_kept = false;
  });
  if (arena_ != nullptr) {
    arena_->release(mark_);
  }
}

const TensorView& Saved::fill(Context& ctx, Slot& slot, DType dtype, const Shape& shape) {
  CARAVAN_CHECK(!slot.view.defined(), "slot {} is filled twice", slot.name);
  slot.is_kept = is_forward_ && arena_ != nullptr && keeps(slot.slot_class);
  Arena& arena = slot.is_kept ? *arena_ : ctx.scratch;
  slot.view = arena.allocate(slot.name, dtype, shape);
  return slot.view;
}

}  // namespace caravan

// What a segment remembers from forward to backward. The caller owns it, so several micro-batches may be in
// flight and a segment may run twice without overwriting anything.
#pragma once

#include <array>
#include <functional>

#include "caravan/backend/context.h"
#include "caravan/backend/pending.h"

namespace caravan {

/// Input: the segment's input, never recomputed. Cheap: a pass over memory away. Costly: a product or
/// attention away. Gathered: a collective away.
enum class SlotClass : std::uint8_t { kInput, kCheap, kCostly, kGathered };

struct Slot {
  const char* name = nullptr;
  SlotClass slot_class = SlotClass::kInput;
  TensorView view;       // undefined: absent, to be computed when needed
  bool is_kept = false;  // in the saved arena; else in scratch, gone when the call ends
};

/// Which classes are kept from forward to backward; the rest is computed again.
struct SavePolicy {
  std::array<bool, 4> keep;  // by SlotClass

  static constexpr SavePolicy none() { return {{true, true, true, false}}; }  // recompute nothing but gathers
  static constexpr SavePolicy selective() { return {{true, false, true, false}}; }  // recompute what is cheap
  static constexpr SavePolicy full() { return {{true, false, false, false}}; }  // recompute all but the input
  static constexpr SavePolicy inference() { return {{false, false, false, false}}; }
};

class Saved {
 public:
  virtual ~Saved() = default;
  using Visitor = std::function<void(Slot&)>;
  /// Every slot, in the order in which they are computed.
  virtual void visit_slots(const Visitor& visitor) = 0;

  /// Before forward: where kept slots live and which they are. `arena` may be null when nothing is kept.
  void begin(Arena* arena, SavePolicy policy);
  /// After forward (and after backward): forgets slots whose memory was scratch.
  void forget_scratch();
  /// After backward: forgets everything and gives the arena back to where it was at begin().
  void finish();

  bool keeps(SlotClass slot_class) const { return policy_.keep.at(static_cast<std::size_t>(slot_class)); }
  /// Memory for an absent slot: the saved arena when its class is kept and this is the forward pass, else
  /// scratch.
  const TensorView& fill(Context& ctx, Slot& slot, DType dtype, const Shape& shape);

  Pending pending;  // the reduction started by backward_input

 private:
  Arena* arena_ = nullptr;
  Arena::Mark mark_ = 0;
  SavePolicy policy_ = SavePolicy::inference();
  bool is_forward_ = false;
};

}  // namespace caravan

// How attention, MLP and head begin: add the pending delta, then RMSNorm. Shared by the three segments.
#pragma once

#include "caravan/model/ports.h"
#include "caravan/model/segment.h"

namespace caravan {

/// Slots of the entry.
struct NormEntrySlots {
  Slot x{"x", SlotClass::kInput, {}};            // [T_stream, D] the stream with delta added
  Slot normed{"normed", SlotClass::kCheap, {}};  // [T_stream, D]
  Slot rstd{"rstd", SlotClass::kCostly, {}};     // [T_stream]
  Slot full{
      "full", SlotClass::kGathered, {}};  // [T, D] normed, seen by the parallel region; may alias `normed`

  void visit(const Saved::Visitor& visitor) {
    visitor(x);
    visitor(normed);
    visitor(rstd);
    visitor(full);
  }
};

class NormEntry {
 public:
  NormEntry(Parameter& weight, double eps, const Boundary& boundary)
      : weight_(&weight), eps_(eps), boundary_(&boundary) {}

  /// Forward: takes the pending delta into slot x and advances the stream to it.
  void take(Context& ctx, ResidualStream& stream, Saved& saved, NormEntrySlots& slots) const;
  /// Fills what is absent of normed, rstd and full from x.
  void materialise(Context& ctx, Saved& saved, NormEntrySlots& slots) const;
  /// g += dL/dx through the norm; accumulates the norm weight's gradient. `dnormed` [T_stream, D].
  void backward(Context& ctx, const TensorView& dnormed, const TensorView& g,
                const NormEntrySlots& slots) const;

  const Boundary& boundary() const { return *boundary_; }

 private:
  Parameter* weight_;
  double eps_;
  const Boundary* boundary_;
};

}  // namespace caravan

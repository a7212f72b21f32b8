// How far two runs of one model may lie apart when they add the same numbers in another order and in other
// places: the tolerances of caravan verify (docs/notes/verify.md has the derivation).
#pragma once

#include <cstdint>

#include "caravan/config/model_config.h"
#include "caravan/core/dtype.h"

namespace caravan {

/// Unit roundoffs: of a stored number, and of the sums inside a product. bfloat16 products add in float32.
struct UnitRoundoff {
  double stored = 0.0;
  double summed = 0.0;
};
/// InternalError unless `dtype` is float32, float64 or bfloat16.
UnitRoundoff unit_roundoff(DType dtype);

/// The sums behind a value.
struct SumLengths {
  std::int64_t longest = 1;  // terms of the longest single sum
  std::int64_t tensors = 1;  // stored one after another on the way to the value
};

/// Relative to the root mean square of the values: 2 √(2 · tensors) · (stored + summed · √longest).
double rounding_tolerance(DType dtype, const SumLengths& sums);

/// The same for the values of a model whose step has `tokens` tokens, in rows of `seq_len`, on `ranks` ranks.
class ModelTolerances {
 public:
  ModelTolerances(DType dtype, const ModelConfig& model, std::int64_t seq_len, std::int64_t tokens,
                  int ranks);

  /// Output of segment `segment`: 0 the embedding, then attention and MLP of each layer, then the head.
  double output(std::int64_t segment) const;
  double logits() const { return output(head_); }
  /// Gradient of what segment `segment` holds: on the way are all segments forward, and back those down to
  /// it.
  double gradient(std::int64_t segment = 0) const;
  /// Loss of step `step` (from 1) when the losses of one rank have moved by `moved` until then, in units of
  /// this step's: each earlier update rounds the weights, and moves the model by as much too far as a
  /// gradient is off.
  double loss(std::int64_t step, double moved) const;
  /// The same for the norm of all gradients.
  double gradient_norm(std::int64_t step, double moved) const;

 private:
  /// Of `segments` segments on the way, with the rounding of the weights by `updates` updates in each.
  double on_the_way(std::int64_t segments, std::int64_t updates, std::int64_t longest) const;

  DType dtype_;
  std::int64_t forward_sum_;          // longest sum of the forward pass before the loss
  std::int64_t longest_sum_;          // of the whole step
  std::int64_t tensors_per_segment_;  // stored one after another
  std::int64_t head_;
};

}  // namespace caravan

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
  double gradient() const { return after_steps(1); }
  /// Loss and gradient norm of step `step` (from 1): every earlier update adds the rounding of a gradient.
  double after_steps(std::int64_t step) const;

 private:
  DType dtype_;
  std::int64_t forward_sum_;          // longest sum of the forward pass before the loss
  std::int64_t longest_sum_;          // of the whole step
  std::int64_t tensors_per_segment_;  // stored one after another
  std::int64_t head_;
};

}  // namespace caravan

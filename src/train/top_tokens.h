// Do two models expect the same next tokens?
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/data/batch.h"
#include "caravan/train/matrix_parts.h"

namespace caravan {

/// The logits of a mesh, put together from parts, beside those of one rank.
class TopTokens {
 public:
  /// `expected` [T, V], float64, float32 or bfloat16 in host memory, outlives this; no rows: nothing is
  /// compared. `batch` has the T tokens.
  TopTokens(const TensorView& expected, const Batch& batch);
  void place(const MatrixPart& part);
  /// TopAgreement (verifier.h) for 1 <= k <= V; of equal logits the lower token id comes first. A logit that
  /// no part brought, and one that is no number, ranks last.
  double agreement(std::int64_t k) const;

 private:
  template <class T>
  std::int64_t shared(std::int64_t token, std::int64_t k) const;

  TensorView expected_;
  const Batch& batch_;
  std::vector<std::byte> bytes_;
  TensorView found_;
};

}  // namespace caravan

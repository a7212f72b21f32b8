// 16-bit elements on their way through sums in float32.
#pragma once

#include "caravan/core/tensor_view.h"

namespace caravan::detail {

inline bool is_half(DType dtype) {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16;
}

/// wide[i] = the value of element i; contiguous host tensors of a 16-bit type.
void widen(const TensorView& half, float* wide);
/// Element i = wide[i], rounded to nearest even.
void round_to_half(const float* wide, const TensorView& half);

}  // namespace caravan::detail

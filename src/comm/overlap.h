// Whether two views share memory.
#pragma once

#include <cstdint>

#include "caravan/core/tensor_view.h"

namespace caravan::detail {

/// Contiguous tensors with memory; what has none overlaps nothing.
inline bool overlap(const TensorView& a, const TensorView& b) {
  const auto a_begin = reinterpret_cast<std::uintptr_t>(a.raw());
  const auto b_begin = reinterpret_cast<std::uintptr_t>(b.raw());
  return a.raw() != nullptr && b.raw() != nullptr && a.numel() > 0 && b.numel() > 0 &&
         a_begin < b_begin + static_cast<std::uintptr_t>(b.bytes()) &&
         b_begin < a_begin + static_cast<std::uintptr_t>(a.bytes());
}

}  // namespace caravan::detail

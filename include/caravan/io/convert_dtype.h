// Element type conversion on the way between files and memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "caravan/core/dtype.h"

namespace caravan {

/// True for equal types and between any two of float64, float32, bfloat16, float16.
bool can_convert(DType from, DType to);

/// `count` elements, rounded to nearest even in one step; equal types are copied bit for bit. Neither pointer
/// needs alignment; the ranges do not overlap. Throws InternalError unless can_convert.
void convert_elements(const std::byte* source, DType from, std::byte* destination, DType to,
                      std::int64_t count);

}  // namespace caravan

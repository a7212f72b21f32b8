// A tensor to be written: its description, and a function that gives its rows a block at a time, so that no
// writer needs the whole of it in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "caravan/core/dtype.h"
#include "caravan/core/shape.h"

namespace caravan {

struct TensorSource {
  std::string name;
  Shape shape;  // rank 1 or more; dim 0 counts the rows
  DType dtype = DType::kFloat32;
  /// Writes rows [row_begin, row_end), contiguous, in `dtype`, to `destination`. Called with rising, gapless
  /// ranges that begin at 0.
  std::function<void(std::int64_t row_begin, std::int64_t row_end, std::byte* destination)> read_rows;

  /// Bytes of one row.
  std::int64_t row_bytes() const;
  std::int64_t bytes() const;
};

/// Calls sink with all bytes of the tensor in order, in blocks of about 4 MiB and at least `rows_per_unit`
/// rows (a multiple of it, but for the last block).
void for_each_block(const TensorSource& source, std::int64_t rows_per_unit,
                    const std::function<void(std::span<std::byte> block)>& sink);

}  // namespace caravan

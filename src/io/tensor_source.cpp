#include "caravan/io/tensor_source.h"

#include <algorithm>
#include <vector>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20U;

}  // namespace

std::int64_t TensorSource::row_bytes() const {
  std::int64_t elements = 1;
  for (int dim = 1; dim < shape.rank(); ++dim) {
    elements *= shape[dim];
  }
  return elements * static_cast<std::int64_t>(dtype_bytes(dtype));
}

std::int64_t TensorSource::bytes() const {
  return shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype));
}

void for_each_block(const TensorSource& source, std::int64_t rows_per_unit,
                    const std::function<void(std::span<std::byte>)>& sink) {
  CARAVAN_CHECK(source.shape.rank() > 0 && rows_per_unit > 0, "{}: blocks of {} rows of {}", source.name,
                rows_per_unit, source.shape.str());
  const std::int64_t rows = source.shape[0];
  const std::int64_t row_bytes = source.row_bytes();
  if (rows == 0 || row_bytes == 0) {
    return;
  }
  const std::int64_t units = std::max<std::int64_t>(1, kBlockBytes / (row_bytes * rows_per_unit));
  const std::int64_t block_rows = std::min(rows, units * rows_per_unit);
  std::vector<std::byte> block(static_cast<std::size_t>(block_rows * row_bytes));
  for (std::int64_t row = 0; row < rows; row += block_rows) {
    const std::int64_t end = std::min(rows, row + block_rows);
    source.read_rows(row, end, block.data());
    sink(std::span(block).first(static_cast<std::size_t>((end - row) * row_bytes)));
  }
}

}  // namespace caravan

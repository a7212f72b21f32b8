#include "merged_tensor.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kCompareBytes = std::int64_t{4} << 20U;

void check_region(const MergedTensor& tensor, const Region& region) {
  const Shape& shape = tensor.info.shape;
  bool is_inside = region.size() == static_cast<std::size_t>(shape.rank());
  for (int dim = 0; is_inside && dim < shape.rank(); ++dim) {
    const Range& range = region[static_cast<std::size_t>(dim)];
    is_inside = 0 <= range.begin && range.begin <= range.end && range.end <= shape[dim];
  }
  CARAVAN_CHECK(is_inside, "region outside {} {}", tensor.info.name, shape.str());
}

}  // namespace

void read_region(const MergedTensor& tensor, const Region& region, const TensorView& destination) {
  check_region(tensor, region);
  if (tensor.hf_head_dim > 0) {
    Region row = region;
    for (std::int64_t i = region[0].begin; i < region[0].end; ++i) {
      const std::int64_t stored = hf_row_of(i, tensor.hf_head_dim);
      row[0] = {stored, stored + 1};
      read_region(tensor.parts.front(), row, destination.rows(i - region[0].begin, i - region[0].begin + 1));
    }
    return;
  }
  if (tensor.parts.size() == 1) {
    read_region(tensor.parts.front(), region, destination);
    return;
  }
  const auto dim = static_cast<std::size_t>(tensor.split_dim);
  std::int64_t offset = 0;  // of this part in the whole
  for (const StoredTensor& part : tensor.parts) {
    const std::int64_t size = part.shape[dim];
    const Range wanted{std::max(region[dim].begin, offset), std::min(region[dim].end, offset + size)};
    if (wanted.begin < wanted.end) {
      Region inside = region;
      inside[dim] = {wanted.begin - offset, wanted.end - offset};
      read_region(part, inside,
                  destination.slice(tensor.split_dim, wanted.begin - region[dim].begin,
                                    wanted.end - region[dim].begin));
    }
    offset += size;
  }
}

bool are_equal(const MergedTensor& a, const MergedTensor& b) {
  const Shape& shape = a.info.shape;
  if (shape != b.info.shape || a.info.dtype != b.info.dtype || shape.rank() == 0) {
    return false;
  }
  const auto item = static_cast<std::int64_t>(dtype_bytes(a.info.dtype));
  const std::int64_t rows = shape[0];
  const std::int64_t row_bytes = rows == 0 ? 0 : shape.numel() / rows * item;
  if (row_bytes == 0) {
    return true;
  }
  const std::int64_t block = std::clamp<std::int64_t>(kCompareBytes / row_bytes, 1, rows);
  std::vector<std::byte> left(static_cast<std::size_t>(block * row_bytes));
  std::vector<std::byte> right(left.size());
  for (std::int64_t row = 0; row < rows; row += block) {
    Region region = full_region(shape);
    region[0] = {row, std::min(rows, row + block)};
    read_region(a, region, TensorView(left.data(), a.info.dtype, region_shape(region)));
    read_region(b, region, TensorView(right.data(), b.info.dtype, region_shape(region)));
    if (std::memcmp(left.data(), right.data(), static_cast<std::size_t>(region[0].size() * row_bytes)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace caravan

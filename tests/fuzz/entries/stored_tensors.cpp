#include "fuzz/entries/stored_tensors.h"

#include <algorithm>
#include <cstdint>

#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {
namespace {

constexpr std::int64_t kMaxElements = 1 << 20;

void read_part(const StoredTensor& tensor, const Region& region) {
  const Shape shape = region_shape(region);
  for (const DType dtype : {tensor.dtype, DType::kFloat32}) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(shape.numel()) * dtype_bytes(dtype));
    accepted([&] { read_region(tensor, region, TensorView(bytes.data(), dtype, shape)); });
  }
}

/// The one index `at` of every dim: 0 the first, 1 the last.
Region corner(const Shape& shape, int at) {
  Region region = full_region(shape);
  for (Range& range : region) {
    range = at == 0 ? Range{0, std::min<std::int64_t>(range.end, 1)}
                    : Range{std::max<std::int64_t>(range.end - 1, 0), range.end};
  }
  return region;
}

bool is_small(const Shape& shape) {
  std::int64_t elements = 1;
  for (int dim = 0; dim < shape.rank(); ++dim) {
    if (shape[dim] > kMaxElements) {
      return false;
    }
    elements *= shape[dim];
    if (elements > kMaxElements) {
      return false;
    }
  }
  return true;
}

}  // namespace

void read_all(const std::vector<StoredTensor>& tensors) {
  std::int64_t left = 4 * kMaxElements;  // over all tensors: a thousand may share one storage
  for (const StoredTensor& tensor : tensors) {
    Shape shape;
    if (!accepted([&] { shape = tensor.checked_shape(); })) {
      continue;
    }
    read_part(tensor, corner(shape, 0));
    read_part(tensor, corner(shape, 1));
    if (!is_small(shape) || shape.numel() > left) {
      continue;
    }
    left -= shape.numel();
    read_part(tensor, full_region(shape));
    if (shape.rank() > 0) {
      Region half = full_region(shape);
      half.back() = {half.back().end / 2, half.back().end};
      read_part(tensor, half);
    }
  }
}

}  // namespace caravan::fuzz

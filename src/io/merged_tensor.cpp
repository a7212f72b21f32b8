#include "merged_tensor.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <exception>
#include <mutex>

#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"

namespace caravan {
namespace {

constexpr std::int64_t kCompareBytes = std::int64_t{4} << 20U;
constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20U;

void check_region(const MergedTensor& tensor, const Region& region) {
  const Shape& shape = tensor.info.shape;
  bool is_inside = region.size() == static_cast<std::size_t>(shape.rank());
  for (int dim = 0; is_inside && dim < shape.rank(); ++dim) {
    const Range& range = region[static_cast<std::size_t>(dim)];
    is_inside = 0 <= range.begin && range.begin <= range.end && range.end <= shape[dim];
  }
  CARAVAN_CHECK(is_inside, "region outside {} {}", tensor.info.name, shape.str());
}

/// Rows 2j and 2j + 1 of a head lie half a head apart in the file: as [heads, halves, half a head, columns]
/// the tensor is the same numbers, and a range of it is read with few calls.
class PermutedReader {
 public:
  PermutedReader(const MergedTensor& tensor, const Region& region, const TensorView& destination)
      : head_dim_(tensor.hf_head_dim),
        region_(region),
        destination_(destination),
        halves_(tensor.parts.front()) {
    const std::int64_t rows = halves_.shape[0];
    const std::int64_t stride = halves_.strides[0];
    halves_.shape = {rows / head_dim_, 2, head_dim_ / 2, halves_.shape[1]};
    halves_.strides = {head_dim_ * stride, head_dim_ / 2 * stride, stride, halves_.strides[1]};
  }

  void read() const {
    const Range& rows = region_[0];
    const Range whole{(rows.begin + head_dim_ - 1) / head_dim_, rows.end / head_dim_};
    if (whole.begin > whole.end) {  // inside one head
      return read_part(whole.end, rows.begin % head_dim_, rows.end % head_dim_);
    }
    if (rows.begin < whole.begin * head_dim_) {
      read_part(whole.begin - 1, rows.begin % head_dim_, head_dim_);
    }
    if (whole.begin < whole.end) {
      read_block(whole, {0, 2}, {0, head_dim_ / 2});
    }
    if (whole.end * head_dim_ < rows.end) {
      read_part(whole.end, 0, rows.end % head_dim_);
    }
  }

 private:
  /// Rows [begin, end) of a head, in Meta's order.
  void read_part(std::int64_t head, std::int64_t begin, std::int64_t end) const {
    for (const std::int64_t half : {0, 1}) {
      const Range pairs{(begin - half + 1) / 2, (end - half + 1) / 2};
      if (pairs.begin < pairs.end) {
        read_block({head, head + 1}, {half, half + 1}, pairs);
      }
    }
  }

  void read_block(const Range& heads, const Range& halves, const Range& pairs) const {
    const std::int64_t first = heads.begin * head_dim_ + 2 * pairs.begin + halves.begin - region_[0].begin;
    const std::int64_t row = destination_.stride(0);
    auto* const data = static_cast<std::byte*>(destination_.raw()) +
                       first * row * static_cast<std::int64_t>(dtype_bytes(destination_.dtype()));
    read_strided(halves_, {heads, halves, pairs, region_[1]},
                 {data, destination_.dtype(), {head_dim_ * row, row, 2 * row, destination_.stride(1)}});
  }

  std::int64_t head_dim_;
  const Region& region_;
  const TensorView& destination_;
  StoredTensor halves_;
};

}  // namespace

void read_region(const MergedTensor& tensor, const Region& region, const TensorView& destination) {
  check_region(tensor, region);
  if (tensor.hf_head_dim > 0) {
    PermutedReader(tensor, region, destination).read();
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

void read_region_on_threads(const MergedTensor& tensor, const Region& region, const TensorView& destination) {
  check_region(tensor, region);
  // A tensor that lies there transposed is read as a whole, see read_strided.
  const bool is_row_major =
      !region.empty() && std::all_of(tensor.parts.begin(), tensor.parts.end(),
                                     [](const auto& part) { return part.strides.back() == 1; });
  const std::int64_t rows = region.empty() ? 0 : region[0].size();
  if (thread_count() == 1 || !is_row_major || rows == 0) {
    return read_region(tensor, region, destination);
  }
  const std::int64_t row_bytes =
      destination.numel() / rows * static_cast<std::int64_t>(dtype_bytes(tensor.info.dtype));
  const std::int64_t unit = std::max<std::int64_t>(1, tensor.hf_head_dim);
  const std::int64_t block =
      std::max<std::int64_t>(1, kBlockBytes / std::max<std::int64_t>(1, row_bytes * unit)) * unit;
  std::atomic<std::int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr problem;
  parallel_for(thread_count(), 1, [&](std::int64_t /*begin*/, std::int64_t /*end*/) {
    for (std::int64_t row = next.fetch_add(block); row < rows; row = next.fetch_add(block)) {
      const std::int64_t end = std::min(row + block, rows);
      Region part = region;
      part[0] = {region[0].begin + row, region[0].begin + end};
      try {
        read_region(tensor, part, destination.rows(row, end));
      } catch (...) {
        const std::lock_guard lock(mutex);
        problem = std::current_exception();
        next = rows;
      }
    }
  });
  if (problem) {
    std::rethrow_exception(problem);
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

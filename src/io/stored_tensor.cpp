#include "caravan/io/stored_tensor.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "caravan/core/error.h"
#include "caravan/io/convert_dtype.h"

namespace caravan {
namespace {

constexpr std::int64_t kStagingBytes = std::int64_t{4} << 20U;

/// One side of the copy: strides in elements of this side, over the dims of the region.
struct Walk {
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> source_strides;
  std::vector<std::int64_t> destination_strides;
  std::int64_t source_start = 0;  // element of the tensor where the region begins

  std::size_t rank() const { return sizes.size(); }
};

Walk plan_walk(const StoredTensor& tensor, const Region& region, const TensorView& destination) {
  CARAVAN_CHECK(region.size() == tensor.shape.size() && destination.defined() &&
                    destination.shape() == region_shape(region) &&
                    destination.device().kind == DeviceKind::kCpu,
                "{}: region of {} dims of {} into {}", tensor.name, region.size(), tensor.shape.size(),
                destination.str());
  Walk walk;
  for (std::size_t dim = 0; dim < region.size(); ++dim) {
    const Range& range = region[dim];
    CARAVAN_CHECK(0 <= range.begin && range.begin <= range.end && range.end <= tensor.shape[dim],
                  "{}: range [{}, {}) of dim {} of size {}", tensor.name, range.begin, range.end, dim,
                  tensor.shape[dim]);
    walk.source_start += range.begin * tensor.strides[dim];
    if (range.size() != 1) {  // a dim of one index never steps
      walk.sizes.push_back(range.size());
      walk.source_strides.push_back(tensor.strides[dim]);
      walk.destination_strides.push_back(destination.stride(static_cast<int>(dim)));
    }
  }
  const int last = destination.rank() - 1;
  CARAVAN_CHECK(last < 0 || destination.dim(last) <= 1 || destination.stride(last) == 1,
                "{}: destination {} is strided in its last dim", tensor.name, destination.str());
  if (walk.sizes.empty() || walk.destination_strides.back() != 1) {  // one element, or one column
    walk.sizes.push_back(1);
    walk.source_strides.push_back(1);
    walk.destination_strides.push_back(1);
  }
  return walk;
}

/// Calls body(source element, destination element) for every index of the dims before `inner_dims`.
template <class Body>
void for_each_outer(const Walk& walk, std::size_t outer_dims, const Body& body) {
  std::vector<std::int64_t> index(outer_dims, 0);
  std::int64_t source = walk.source_start;
  std::int64_t destination = 0;
  for (;;) {
    body(source, destination);
    std::size_t dim = outer_dims;
    for (;;) {
      if (dim == 0) {
        return;
      }
      --dim;
      source += walk.source_strides[dim];
      destination += walk.destination_strides[dim];
      if (++index[dim] < walk.sizes[dim]) {
        break;
      }
      source -= walk.sizes[dim] * walk.source_strides[dim];
      destination -= walk.sizes[dim] * walk.destination_strides[dim];
      index[dim] = 0;
    }
  }
}

class RegionReader {
 public:
  RegionReader(const StoredTensor& tensor, const TensorView& destination)
      : tensor_(tensor),
        item_(static_cast<std::int64_t>(dtype_bytes(tensor.dtype))),
        to_(destination.dtype()),
        to_item_(static_cast<std::int64_t>(dtype_bytes(to_))),
        out_(static_cast<std::byte*>(destination.raw())) {}

  /// Rows that are contiguous on both sides, merged over as many dims as are.
  void copy_runs(const Walk& walk) {
    std::size_t outer = walk.rank() - 1;
    std::int64_t run = walk.sizes.back();
    while (outer > 0 && walk.source_strides[outer - 1] == run && walk.destination_strides[outer - 1] == run) {
      run *= walk.sizes[--outer];
    }
    for_each_outer(walk, outer, [&](std::int64_t source, std::int64_t destination) {
      read_run(source, run, out_ + destination * to_item_);
    });
  }

  /// A last dim with gaps: one read of all it spans when that is little more than what is wanted, else one
  /// read per element.
  void gather(const Walk& walk, std::int64_t count) {
    std::int64_t span = 1;
    for (std::size_t dim = 0; dim < walk.rank(); ++dim) {
      span += (walk.sizes[dim] - 1) * walk.source_strides[dim];
    }
    const bool is_dense = span / 4 <= count;
    std::vector<std::byte> spanned;
    if (is_dense) {
      spanned.resize(static_cast<std::size_t>(span * item_));
      tensor_.file->read_at(position(walk.source_start), spanned);
    }
    const std::int64_t row = walk.sizes.back();
    const std::int64_t stride = walk.source_strides.back();
    staging_.resize(static_cast<std::size_t>(row * item_));
    for_each_outer(walk, walk.rank() - 1, [&](std::int64_t source, std::int64_t destination) {
      for (std::int64_t i = 0; i < row; ++i) {
        const std::int64_t element = source + i * stride;
        const std::span<std::byte> to =
            std::span(staging_).subspan(static_cast<std::size_t>(i * item_), static_cast<std::size_t>(item_));
        if (is_dense) {
          std::copy_n(spanned.begin() + (element - walk.source_start) * item_, item_, to.begin());
        } else {
          tensor_.file->read_at(position(element), to);
        }
      }
      convert_elements(staging_.data(), tensor_.dtype, out_ + destination * to_item_, to_, row);
    });
  }

 private:
  std::int64_t position(std::int64_t element) const { return tensor_.offset_bytes + element * item_; }

  void read_run(std::int64_t source, std::int64_t count, std::byte* destination) {
    if (tensor_.dtype == to_) {
      tensor_.file->read_at(position(source),
                            std::span(destination, static_cast<std::size_t>(count * item_)));
      return;
    }
    const std::int64_t block = std::min(count, kStagingBytes / item_);
    staging_.resize(static_cast<std::size_t>(block * item_));
    for (std::int64_t done = 0; done < count; done += block) {
      const std::int64_t now = std::min(block, count - done);
      tensor_.file->read_at(position(source + done),
                            std::span(staging_).first(static_cast<std::size_t>(now * item_)));
      convert_elements(staging_.data(), tensor_.dtype, destination + done * to_item_, to_, now);
    }
  }

  const StoredTensor& tensor_;
  std::int64_t item_;
  DType to_;
  std::int64_t to_item_;
  std::byte* out_;
  std::vector<std::byte> staging_;
};

}  // namespace

Shape StoredTensor::checked_shape() const {
  if (shape.size() > static_cast<std::size_t>(Shape::kMaxRank)) {
    fail<IoError>("{}: tensor '{}' has {} dims; at most {} are supported", file->path(), name, shape.size(),
                  Shape::kMaxRank);
  }
  Shape result;
  for (const std::int64_t size : shape) {
    result.append(size);
  }
  return result;
}

bool is_same_memory(const StoredTensor& a, const StoredTensor& b) {
  return a.file == b.file && a.offset_bytes == b.offset_bytes && a.dtype == b.dtype && a.shape == b.shape &&
         a.strides == b.strides;
}

void read_region(const StoredTensor& tensor, const Region& region, const TensorView& destination) {
  if (!can_convert(tensor.dtype, destination.dtype())) {
    fail<IoError>("{}: tensor '{}' is {} and cannot be read as {}", tensor.file->path(), tensor.name,
                  dtype_name(tensor.dtype), dtype_name(destination.dtype()));
  }
  const Walk walk = plan_walk(tensor, region, destination);
  const std::int64_t count = destination.numel();
  if (count == 0) {
    return;
  }
  RegionReader reader(tensor, destination);
  if (walk.source_strides.back() == 1) {
    reader.copy_runs(walk);
  } else {
    reader.gather(walk, count);
  }
}

}  // namespace caravan

#include "caravan/io/stored_tensor.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>

#include "caravan/core/error.h"
#include "caravan/io/convert_dtype.h"

namespace caravan {
namespace {

// What is converted piece by piece stays in the processor's cache between the two steps.
constexpr std::int64_t kPieceBytes = std::int64_t{256} << 10U;
// Most that is read with one call to be spread from there.
constexpr std::int64_t kStagingBytes = std::int64_t{4} << 20U;
// A run this long is worth a call of its own; shorter ones are read with their neighbours, as long as at most
// this many times the wanted bytes are read (the file system reads whole pages ahead anyway).
constexpr std::int64_t kLongRunBytes = std::int64_t{128} << 10U;
constexpr std::int64_t kMostGap = 8;

/// One side of the copy: strides in elements of this side, over the dims of the region.
struct Walk {
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> source_strides;
  std::vector<std::int64_t> destination_strides;
  std::int64_t source_start = 0;  // element of the tensor where the region begins

  std::size_t rank() const { return sizes.size(); }
};

Walk plan_walk(const StoredTensor& tensor, const Region& region, const StridedMemory& destination) {
  CARAVAN_CHECK(region.size() == tensor.shape.size() && region.size() == destination.strides.size(),
                "{}: region of {} dims of {} into {}", tensor.name, region.size(), tensor.shape.size(),
                destination.strides.size());
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
      walk.destination_strides.push_back(destination.strides[dim]);
    }
  }
  CARAVAN_CHECK(region.empty() || region.back().size() <= 1 || destination.strides.back() == 1,
                "{}: destination is strided in its last dim", tensor.name);
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

/// Bytes between file and destination. Not a vector, which would write zeros before what is read.
class Staging {
 public:
  std::span<std::byte> take(std::int64_t bytes) {
    if (bytes > capacity_) {
      memory_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes));
      capacity_ = bytes;
    }
    return {memory_.get(), static_cast<std::size_t>(bytes)};
  }
  const std::byte* data() const { return memory_.get(); }

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::int64_t capacity_ = 0;
};

class RegionReader {
 public:
  RegionReader(const StoredTensor& tensor, const StridedMemory& destination)
      : tensor_(tensor),
        item_(static_cast<std::int64_t>(dtype_bytes(tensor.dtype))),
        to_(destination.dtype),
        to_item_(static_cast<std::int64_t>(dtype_bytes(to_))),
        out_(destination.data) {}

  /// Rows that are contiguous on both sides. Rows that lie close together in the file but not at their
  /// destination (a column range, Hugging Face's row order) are read together and spread from the staging
  /// memory: one call per few MiB instead of one per row.
  void copy_runs(const Walk& walk) {
    merge_inner(walk);
    copy(0, walk.source_start, 0);
  }

  /// A last dim with gaps: one read of all it spans when that is little more than what is wanted, else one
  /// read per element.
  void gather(const Walk& walk, std::int64_t count) {
    std::int64_t span = 1;
    for (std::size_t dim = 0; dim < walk.rank(); ++dim) {
      span += (walk.sizes[dim] - 1) * walk.source_strides[dim];
    }
    const bool is_dense = span / 4 <= count;
    if (is_dense) {
      tensor_.file->read_at(position(walk.source_start), spanned_.take(span * item_));
    }
    const std::int64_t row = walk.sizes.back();
    const std::int64_t stride = walk.source_strides.back();
    const std::span<std::byte> staging = staging_.take(row * item_);
    for_each_outer(walk, walk.rank() - 1, [&](std::int64_t source, std::int64_t destination) {
      for (std::int64_t i = 0; i < row; ++i) {
        const std::int64_t element = source + i * stride;
        const std::span<std::byte> to =
            staging.subspan(static_cast<std::size_t>(i * item_), static_cast<std::size_t>(item_));
        if (is_dense) {
          std::copy_n(spanned_.data() + (element - walk.source_start) * item_, item_, to.begin());
        } else {
          tensor_.file->read_at(position(element), to);
        }
      }
      convert_elements(staging_.data(), tensor_.dtype, out_ + destination * to_item_, to_, row);
    });
  }

 private:
  /// A dim of `walk_` with what is inside it, in elements of the file.
  struct Level {
    std::int64_t size = 1;
    std::int64_t source_stride = 1;
    std::int64_t destination_stride = 1;
    std::int64_t span = 1;   // from the first element to behind the last, of one index of this dim
    std::int64_t count = 1;  // elements wanted, of one index of this dim
  };

  void merge_inner(const Walk& walk) {
    std::size_t outer = walk.rank() - 1;
    run_ = walk.sizes.back();
    while (outer > 0 && walk.source_strides[outer - 1] == run_ &&
           walk.destination_strides[outer - 1] == run_) {
      run_ *= walk.sizes[--outer];
    }
    levels_.resize(outer);
    std::int64_t span = run_;
    std::int64_t count = run_;
    for (std::size_t dim = outer; dim-- > 0;) {
      levels_[dim] = {walk.sizes[dim], walk.source_strides[dim], walk.destination_strides[dim], span, count};
      span += (walk.sizes[dim] - 1) * walk.source_strides[dim];
      count *= walk.sizes[dim];
    }
  }

  /// Everything inside dims `dim` and later, for one index of the dims before.
  void copy(std::size_t dim, std::int64_t source, std::int64_t destination) {
    if (dim == levels_.size()) {
      read_run(source, run_, out_ + destination * to_item_);
      return;
    }
    const Level& level = levels_[dim];
    const std::int64_t together = indices_together(level);
    for (std::int64_t i = 0; i < level.size; i += together) {
      const std::int64_t from = source + i * level.source_stride;
      const std::int64_t to = destination + i * level.destination_stride;
      if (together == 1) {
        copy(dim + 1, from, to);
        continue;
      }
      const std::int64_t now = std::min(together, level.size - i);
      const std::int64_t span = (now - 1) * level.source_stride + level.span;
      tensor_.file->read_at(position(from), spanned_.take(span * item_));
      for (std::int64_t k = 0; k < now; ++k) {
        spread(dim + 1, k * level.source_stride, to + k * level.destination_stride);
      }
    }
  }

  /// How many indices of a dim to read with one call; 1: each for itself. Long runs are read in place, and
  /// sparse ones alone.
  std::int64_t indices_together(const Level& level) const {
    const std::int64_t limit = kStagingBytes / item_;
    if (run_ * item_ >= kLongRunBytes || level.span > limit || level.size == 1) {
      return 1;
    }
    const std::int64_t fitting =
        level.source_stride == 0 ? level.size : (limit - level.span) / level.source_stride + 1;
    const std::int64_t together = std::min(fitting, level.size);
    const std::int64_t span = (together - 1) * level.source_stride + level.span;
    return span / kMostGap <= together * level.count ? together : 1;
  }

  /// As copy, from the bytes read before.
  void spread(std::size_t dim, std::int64_t at, std::int64_t destination) {
    if (dim == levels_.size()) {
      convert_elements(spanned_.data() + at * item_, tensor_.dtype, out_ + destination * to_item_, to_, run_);
      return;
    }
    const Level& level = levels_[dim];
    for (std::int64_t i = 0; i < level.size; ++i) {
      spread(dim + 1, at + i * level.source_stride, destination + i * level.destination_stride);
    }
  }

  std::int64_t position(std::int64_t element) const { return tensor_.offset_bytes + element * item_; }

  void read_run(std::int64_t source, std::int64_t count, std::byte* destination) {
    if (tensor_.dtype == to_) {
      tensor_.file->read_at(position(source),
                            std::span(destination, static_cast<std::size_t>(count * item_)));
      return;
    }
    const std::int64_t piece = std::min(count, kPieceBytes / item_);
    for (std::int64_t done = 0; done < count; done += piece) {
      const std::int64_t now = std::min(piece, count - done);
      tensor_.file->read_at(position(source + done), staging_.take(now * item_));
      convert_elements(staging_.data(), tensor_.dtype, destination + done * to_item_, to_, now);
    }
  }

  const StoredTensor& tensor_;
  std::int64_t item_;
  DType to_;
  std::int64_t to_item_;
  std::byte* out_;
  std::int64_t run_ = 1;  // elements contiguous on both sides
  std::vector<Level> levels_;
  Staging staging_;
  Staging spanned_;
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

std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t dim = shape.size(); dim-- > 1;) {
    strides[dim - 1] = strides[dim] * std::max<std::int64_t>(shape[dim], 1);
  }
  return strides;
}

bool is_same_memory(const StoredTensor& a, const StoredTensor& b) {
  return a.file == b.file && a.offset_bytes == b.offset_bytes && a.dtype == b.dtype && a.shape == b.shape &&
         a.strides == b.strides;
}

void read_strided(const StoredTensor& tensor, const Region& region, const StridedMemory& destination) {
  if (!can_convert(tensor.dtype, destination.dtype)) {
    fail<IoError>("{}: tensor '{}' is {} and cannot be read as {}", tensor.file->path(), tensor.name,
                  dtype_name(tensor.dtype), dtype_name(destination.dtype));
  }
  const Walk walk = plan_walk(tensor, region, destination);
  std::int64_t count = 1;
  for (const Range& range : region) {
    count *= range.size();
  }
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

void read_region(const StoredTensor& tensor, const Region& region, const TensorView& destination) {
  CARAVAN_CHECK(destination.defined() && destination.shape() == region_shape(region) &&
                    destination.device().kind == DeviceKind::kCpu,
                "{}: region of {} dims into {}", tensor.name, region.size(), destination.str());
  StridedMemory memory{static_cast<std::byte*>(destination.raw()), destination.dtype(), {}};
  for (int dim = 0; dim < destination.rank(); ++dim) {
    memory.strides.push_back(destination.stride(dim));
  }
  read_strided(tensor, region, memory);
}

}  // namespace caravan

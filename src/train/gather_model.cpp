#include "caravan/train/gather_model.h"

#include <algorithm>
#include <cstring>

#include "caravan/backend/device_memory.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

/// [rank of the region, begin, end, ...] per tensor.
std::string to_bytes(const std::vector<Region>& regions) {
  std::vector<std::int64_t> numbers;
  for (const Region& region : regions) {
    numbers.push_back(static_cast<std::int64_t>(region.size()));
    for (const Range& range : region) {
      numbers.push_back(range.begin);
      numbers.push_back(range.end);
    }
  }
  std::string bytes(numbers.size() * sizeof(std::int64_t), '\0');
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return bytes;
}

std::vector<Region> from_bytes(const std::string& bytes) {
  std::vector<std::int64_t> numbers(bytes.size() / sizeof(std::int64_t));
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  std::vector<Region> regions;
  for (std::size_t at = 0; at < numbers.size();) {
    Region& region = regions.emplace_back(static_cast<std::size_t>(numbers[at++]));
    for (Range& range : region) {
      range = {numbers.at(at), numbers.at(at + 1)};
      at += 2;
    }
  }
  return regions;
}

/// Copies a contiguous block into the region of a contiguous whole tensor of one or two dims.
void place(const TensorView& block, const Region& region, const TensorView& whole) {
  const auto item = static_cast<std::int64_t>(dtype_bytes(whole.dtype()));
  const std::int64_t row_items = whole.rank() == 1 ? 1 : whole.dim(1);
  const std::int64_t first_col = region.size() == 1 ? 0 : region[1].begin;
  const std::int64_t run = region.size() == 1 ? 1 : region[1].size();
  for (std::int64_t row = 0; row < region[0].size(); ++row) {
    std::memcpy(
        static_cast<std::byte*>(whole.raw()) + ((region[0].begin + row) * row_items + first_col) * item,
        static_cast<const std::byte*>(block.raw()) + row * run * item, static_cast<std::size_t>(run * item));
  }
}

void reserve(Buffer& buffer, std::int64_t bytes) {
  if (buffer.bytes() < bytes) {
    buffer = Buffer();
    buffer = allocate_host(bytes);
  }
}

}  // namespace

ModelGather::ModelGather(Communicator& world, std::vector<ParameterSpec> model,
                         std::vector<ParameterShard> shards)
    : world_(world),
      model_(std::move(model)),
      shards_(std::move(shards)),
      dtype_(shards_.front().value.dtype()) {
  std::vector<Region> mine;
  for (const ParameterSpec& spec : model_) {
    const auto shard = std::find_if(shards_.begin(), shards_.end(), [&](const ParameterShard& candidate) {
      return candidate.parameter->name() == spec.name && candidate.is_first_copy;
    });
    mine.push_back(shard == shards_.end() ? Region{} : shard->region);
  }
  for (const std::string& bytes : world.gather_bytes(to_bytes(mine), kRoot)) {
    regions_.push_back(from_bytes(bytes));
  }
}

TensorView ModelGather::mine(const std::string& name) const {
  for (const ParameterShard& shard : shards_) {
    if (shard.parameter->name() == name && shard.is_first_copy) {
      return shard.value.reshape({shard.value.numel()});
    }
  }
  return {const_cast<DType*>(&dtype_), dtype_, {0}};  // nothing: any address will do
}

TensorView ModelGather::gather(std::size_t index) {
  const ParameterSpec& spec = model_.at(index);
  const HostCopy own(mine(spec.name));
  if (world_.rank() != kRoot) {
    world_.gatherv(own.view(), {}, kRoot);
    return {};
  }
  const auto item = static_cast<std::int64_t>(dtype_bytes(dtype_));
  reserve(whole_, spec.shape.numel() * item);
  reserve(parts_, spec.shape.numel() * item);
  std::vector<TensorView> parts;
  std::int64_t offset = 0;
  for (const auto& regions : regions_) {
    const Region& region = regions.at(index);
    const std::int64_t count = region.empty() ? 0 : region_shape(region).numel();
    parts.push_back({static_cast<std::byte*>(parts_.data()) + offset * item, dtype_, {count}});
    offset += count;
  }
  CARAVAN_CHECK(offset == spec.shape.numel(), "the ranks hold {} of the {} elements of {}", offset,
                spec.shape.numel(), spec.name);
  world_.gatherv(own.view(), parts, kRoot);
  const TensorView whole = whole_.view(0, dtype_, spec.shape);
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    if (const Region& region = regions_[rank].at(index); !region.empty()) {
      place(parts[rank], region, whole);
    }
  }
  return whole;
}

std::vector<TensorSource> ModelGather::sources() {
  std::vector<TensorSource> sources;
  for (std::size_t i = 0; i < model_.size(); ++i) {
    sources.push_back({.name = model_[i].name,
                       .shape = model_[i].shape,
                       .dtype = dtype_,
                       .read_rows = [this, i](std::int64_t begin, std::int64_t end, std::byte* destination) {
                         if (begin == 0) {
                           gather(i);
                         }
                         const std::int64_t row_bytes = model_[i].shape.numel() / model_[i].shape[0] *
                                                        static_cast<std::int64_t>(dtype_bytes(dtype_));
                         std::memcpy(destination, static_cast<std::byte*>(whole_.data()) + begin * row_bytes,
                                     static_cast<std::size_t>((end - begin) * row_bytes));
                       }});
  }
  return sources;
}

void ModelGather::contribute() {
  for (std::size_t i = 0; i < model_.size(); ++i) {
    gather(i);
  }
}

}  // namespace caravan

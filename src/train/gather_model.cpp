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

std::int64_t elements_of(const Region& region) {
  return region.empty() ? 0 : region_shape(region).numel();
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
  own_.emplace(mine(spec.name));
  if (world_.rank() != kRoot) {
    world_.gatherv(own_->view(), {}, kRoot);
    return {};
  }
  std::int64_t held = 0;
  bool has_whole_rows = true;
  for (const auto& regions : regions_) {
    const Region& region = regions.at(index);
    held += elements_of(region);
    has_whole_rows = has_whole_rows && (region.size() < 2 || region[1].size() == spec.shape[1]);
  }
  CARAVAN_CHECK(held == spec.shape.numel(), "the ranks hold {} of the {} elements of {}", held,
                spec.shape.numel(), spec.name);
  last_ = has_whole_rows ? gather_rows(index) : gather_columns(index);
  return last_;
}

/// Every part arrives where it belongs; what the root has whole stays where it is.
TensorView ModelGather::gather_rows(std::size_t index) {
  const ParameterSpec& spec = model_.at(index);
  TensorView whole = own_->view();
  if (whole.numel() < spec.shape.numel()) {
    reserve(whole_, spec.shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype_)));
    whole = whole_.view(0, dtype_, {spec.shape.numel()});
  }
  const std::int64_t row_items = spec.shape.numel() / spec.shape[0];
  std::vector<TensorView> parts;
  for (const auto& regions : regions_) {
    const Region& region = regions.at(index);
    const std::int64_t first = region.empty() ? 0 : region[0].begin * row_items;
    parts.push_back(whole.rows(first, first + elements_of(region)));
  }
  world_.gatherv(own_->view(), parts, kRoot);
  return whole.reshape(spec.shape);
}

/// Parts that are no run of elements in the whole arrive beside it and are put in their places.
TensorView ModelGather::gather_columns(std::size_t index) {
  const ParameterSpec& spec = model_.at(index);
  const std::int64_t bytes = spec.shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype_));
  reserve(whole_, bytes);
  reserve(parts_, bytes);
  const TensorView room = parts_.view(0, dtype_, {spec.shape.numel()});
  std::vector<TensorView> parts;
  std::int64_t offset = 0;
  for (const auto& regions : regions_) {
    const std::int64_t count = elements_of(regions.at(index));
    parts.push_back(room.rows(offset, offset + count));
    offset += count;
  }
  world_.gatherv(own_->view(), parts, kRoot);
  const TensorView whole = whole_.view(0, dtype_, spec.shape);
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    if (const Region& region = regions_[rank].at(index); !region.empty()) {
      place(parts[rank], region, whole);
    }
  }
  return whole;
}

std::int64_t ModelGather::root_bytes(const std::vector<ParameterSpec>& model, const Coordinates& at,
                                     DType dtype) {
  const bool has_parts_elsewhere = at.count("fsdp") > 1 || at.count("pp") > 1;
  std::int64_t whole = 0;
  std::int64_t parts = 0;
  for (const ParameterSpec& spec : model) {
    const Region region = spec.shard.resolve(spec.shape, at);
    const bool is_cut = has_parts_elsewhere || elements_of(region) < spec.shape.numel();
    const bool cuts_columns = region.size() == 2 && region[1].size() < spec.shape[1];
    const std::int64_t bytes = spec.shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype));
    whole = std::max(whole, is_cut ? bytes : 0);
    parts = std::max(parts, cuts_columns ? bytes : 0);
  }
  return whole + parts;
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
                         std::memcpy(destination, static_cast<std::byte*>(last_.raw()) + begin * row_bytes,
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

#include "caravan/parallel/leased_memory.h"

#include <algorithm>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kAlignment = 64;

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

LeasedMemory::LeasedMemory(ParameterSet& parameters, LeasedPart part, DType dtype, Backend& backend,
                           Keep keep)
    : parameters_(parameters), part_(part), dtype_(dtype), backend_(backend), keep_(keep) {
  const auto item = static_cast<std::int64_t>(dtype_bytes(dtype));
  std::vector<bool> is_block;
  for (const Parameter& parameter : parameters.all()) {
    const auto group = static_cast<std::size_t>(parameter.spec().group);
    class_bytes_.resize(std::max(class_bytes_.size(), group + 1));
    is_block.resize(class_bytes_.size());
    class_bytes_[group] += aligned(parameter.shape().numel() * item);
    is_block[group] = parameter.name().starts_with("layers.");
  }
  for (const bool block : {false, true}) {
    std::int64_t largest = 0;
    for (std::size_t group = 0; group < class_bytes_.size(); ++group) {
      largest = is_block[group] == block ? std::max(largest, class_bytes_[group]) : largest;
    }
    for (std::size_t group = 0; group < class_bytes_.size(); ++group) {
      class_bytes_[group] = is_block[group] == block ? largest : class_bytes_[group];
    }
  }
}

const LeasedMemory::Slot* LeasedMemory::find(int group) const {
  const auto at =
      std::find_if(slots_.begin(), slots_.end(), [&](const Slot& slot) { return slot.group == group; });
  return at == slots_.end() ? nullptr : &*at;
}

LeasedMemory::Slot* LeasedMemory::find(int group) {
  return const_cast<Slot*>(
      std::as_const(*this).find(group));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

/// The free slot that fits best, and of those the one that was used longest ago; a new one when none is free.
LeasedMemory::Slot& LeasedMemory::slot_for(std::int64_t bytes) {
  Slot* best = nullptr;
  for (Slot& slot : slots_) {
    const bool is_kept = slot.leases > 0 || (keep_ == Keep::kAll && slot.group >= 0);
    if (is_kept || slot.memory.bytes() < bytes) {
      continue;
    }
    const auto rank = [](const Slot& candidate) {
      return std::pair(candidate.memory.bytes(), candidate.last_use);
    };
    best = best == nullptr || rank(slot) < rank(*best) ? &slot : best;
  }
  if (best == nullptr) {
    slots_.push_back({backend_.allocate(bytes), -1, 0, 0});
    best = &slots_.back();
  }
  return *best;
}

std::vector<std::int64_t> LeasedMemory::slot_bytes() const {
  std::vector<std::int64_t> sizes;
  for (const Slot& slot : slots_) {
    sizes.push_back(slot.memory.bytes());
  }
  return sizes;
}

void LeasedMemory::reserve(const std::vector<std::int64_t>& slot_bytes) {
  CARAVAN_CHECK(slots_.empty(), "{} slots are in use already", slots_.size());
  for (const std::int64_t bytes : slot_bytes) {
    slots_.push_back({backend_.allocate(bytes), -1, 0, 0});
  }
}

void LeasedMemory::point_at(int group, const Buffer* memory) {
  const auto item = static_cast<std::int64_t>(dtype_bytes(dtype_));
  std::int64_t offset = 0;
  for (Parameter& parameter : parameters_.all()) {
    if (parameter.spec().group != group) {
      continue;
    }
    TensorView& view = part_ == LeasedPart::kValue ? parameter.value_ : parameter.grad_;
    view = memory != nullptr ? memory->view(offset, dtype_, parameter.shape()) : TensorView();
    offset += aligned(parameter.shape().numel() * item);
  }
}

bool LeasedMemory::acquire(int group) {
  Slot* slot = find(group);
  const bool is_valid = slot != nullptr;
  if (!is_valid) {
    slot = &slot_for(class_bytes_.at(static_cast<std::size_t>(group)));
    if (slot->group >= 0) {
      point_at(slot->group, nullptr);
    }
    slot->group = group;
    point_at(group, &slot->memory);
  }
  ++slot->leases;
  slot->last_use = ++clock_;
  const auto in_use = std::count_if(slots_.begin(), slots_.end(), [](const Slot& s) { return s.leases > 0; });
  most_in_use_ = std::max(most_in_use_, static_cast<int>(in_use));
  return is_valid;
}

void LeasedMemory::release(int group) {
  Slot* slot = find(group);
  CARAVAN_CHECK(slot != nullptr && slot->leases > 0, "group {} is released more often than acquired", group);
  --slot->leases;
}

void LeasedMemory::forget(int group) {
  Slot* slot = find(group);
  CARAVAN_CHECK(slot != nullptr && slot->leases == 0, "group {} is forgotten while in use", group);
  slot->group = -1;
  point_at(group, nullptr);
}

void LeasedMemory::forget_all() {
  for (const Slot& slot : slots_) {
    if (slot.group >= 0) {
      forget(slot.group);
    }
  }
}

std::int64_t LeasedMemory::bytes() const {
  std::int64_t total = 0;
  for (const Slot& slot : slots_) {
    total += slot.memory.bytes();
  }
  return total;
}

}  // namespace caravan

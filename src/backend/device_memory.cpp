#include "caravan/backend/device_memory.h"

#include <cstring>
#include <utility>

#include "caravan/core/error.h"

namespace caravan {
namespace {

DeviceCopier* installed_copier = nullptr;

bool is_on_device(const TensorView& view) {
  return view.device().kind == DeviceKind::kCuda;
}

void move(const TensorView& view, void* to, const void* from) {
  CARAVAN_CHECK(view.is_contiguous(), "{} must be contiguous to be moved in one piece", view.str());
  if (view.bytes() == 0 || view.raw() == nullptr) {
    return;
  }
  if (is_on_device(view)) {
    CARAVAN_CHECK(installed_copier != nullptr, "{} is on a device that nobody serves", view.str());
    installed_copier->copy(to, from, view.bytes());
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(view.bytes()));
  }
}

Buffer host_memory_for(const TensorView& view) {
  return is_on_device(view) ? allocate_host(view.bytes()) : Buffer();
}

}  // namespace

DeviceCopier* set_device_copier(DeviceCopier* copier) {
  return std::exchange(installed_copier, copier);
}

void copy_to_host(const TensorView& from, void* to) {
  move(from, to, from.raw());
}

void copy_from_host(const void* from, const TensorView& to) {
  move(to, to.raw(), from);
}

HostCopy::HostCopy(const TensorView& view) : memory_(host_memory_for(view)), view_(view) {
  if (is_on_device(view)) {
    view_ = memory_.view(0, view.dtype(), view.shape());
    copy_to_host(view, view_.raw());
  }
}

HostDraft::HostDraft(const TensorView& target)
    : target_(target), memory_(host_memory_for(target)), view_(target) {
  if (is_on_device(target)) {
    view_ = memory_.view(0, target.dtype(), target.shape());
  }
}

void HostDraft::commit() {
  if (is_on_device(target_)) {
    copy_from_host(view_.raw(), target_);
  }
}

}  // namespace caravan

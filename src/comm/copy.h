// What a rank hands to itself.
#pragma once

#include <cstring>

#include "caravan/backend/device_streams.h"
#include "caravan/core/tensor_view.h"

namespace caravan::detail {

/// Contiguous tensors of the same size; nothing when both are the same memory or one has none, and overlap is
/// allowed.
inline void copy_elements(const TensorView& from, const TensorView& to) {
  if (from.raw() != to.raw() && from.raw() != nullptr && to.raw() != nullptr && from.numel() > 0) {
    std::memmove(to.raw(), from.raw(), static_cast<std::size_t>(from.bytes()));
  }
}

/// The same where at least one of the two is on the device, enqueued on `stream`; no overlap.
inline void copy_on_device(DeviceStreams& device, const TensorView& from, const TensorView& to,
                           const Stream& stream) {
  if (from.raw() != to.raw() && from.raw() != nullptr && to.raw() != nullptr && from.numel() > 0) {
    device.copy(to.raw(), from.raw(), from.bytes(), stream);
  }
}

}  // namespace caravan::detail

// Owned memory on one device.
#pragma once

#include <cstdint>
#include <memory>

#include "caravan/core/tensor_view.h"

namespace caravan {

/// Movable, not copyable. Freed by the deleter its backend gave it. A buffer on DeviceKind::kNone has a size
/// and no memory: views of it carry shapes only.
class Buffer {
 public:
  using Deleter = void (*)(void*);

  Buffer() = default;
  Buffer(void* data, std::int64_t bytes, Device device, Deleter deleter)
      : data_(data, deleter), bytes_(bytes), device_(device) {}

  void* data() const { return data_.get(); }
  std::int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  /// Contiguous view at `offset_bytes`; throws when it does not fit or is misaligned for its dtype.
  TensorView view(std::int64_t offset_bytes, DType dtype, const Shape& shape) const;

 private:
  std::unique_ptr<void, Deleter> data_{nullptr, [](void*) {}};
  std::int64_t bytes_ = 0;
  Device device_;
};

/// Zeroed host memory aligned to 64 bytes. Throws DeviceError with the amount when there is none.
Buffer allocate_host(std::int64_t bytes);

}  // namespace caravan

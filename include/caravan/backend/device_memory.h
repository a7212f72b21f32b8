// Bytes on their way between host memory and a device, for whoever reads or writes tensors outside of ops:
// files, batches, losses, comparisons.
#pragma once

#include "caravan/backend/buffer.h"

namespace caravan {

/// Moves bytes from or to the memory of a device. The runtime of a device other than the CPU installs one.
class DeviceCopier {
 public:
  DeviceCopier() = default;
  virtual ~DeviceCopier() = default;
  DeviceCopier(const DeviceCopier&) = delete;
  DeviceCopier& operator=(const DeviceCopier&) = delete;
  DeviceCopier(DeviceCopier&&) = delete;
  DeviceCopier& operator=(DeviceCopier&&) = delete;

  /// Either address may be host memory. After everything that ops have enqueued; done on return.
  virtual void copy(void* to, const void* from, std::int64_t bytes) = 0;
};

/// For the one device of another kind than the CPU that a process has. Returns the copier before, null for
/// none; to be set back in reverse order. `copier` outlives its use.
DeviceCopier* set_device_copier(DeviceCopier* copier);

/// All elements of a contiguous view to host memory, or from it. Waits for the ops before it; done on return.
void copy_to_host(const TensorView& from, void* to);
void copy_from_host(const void* from, const TensorView& to);

/// A contiguous view's elements where the host can read them: in place for host memory and views without
/// memory, else a copy that was made on construction.
class HostCopy {
 public:
  explicit HostCopy(const TensorView& view);
  const TensorView& view() const { return view_; }

 private:
  Buffer memory_;
  TensorView view_;
};

/// Where the host may write what shall become a contiguous view's elements: the view itself for host memory,
/// else zeroed memory of the same shape that commit() sends to the device.
class HostDraft {
 public:
  explicit HostDraft(const TensorView& target);
  const TensorView& view() const { return view_; }
  void commit();

 private:
  TensorView target_;
  Buffer memory_;
  TensorView view_;
};

}  // namespace caravan

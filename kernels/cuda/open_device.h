// The way to a device, resolved by the linker (count_devices too): kernels/cuda where the build has CUDA,
// kernels/no_cuda/open_device.cpp where it has not, tests/host_runner/emulated_device.cpp in tests.
#pragma once

#include <memory>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_count.h"
#include "kernels/cuda/device_runtime.h"

namespace caravan::cuda {

/// A device and the table of ops over it.
struct OpenDevice {
  std::unique_ptr<DeviceRuntime> runtime;
  std::unique_ptr<Backend> backend;
};
/// Device `index` of those that are usable. Throws DeviceError when it cannot be used.
OpenDevice open_device(int index);

}  // namespace caravan::cuda

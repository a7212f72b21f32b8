// A device in host memory: the CUDA backend and everything above it run in tests without a GPU, kernels on
// the host runner. Its memory cannot be touched outside of kernels, copies and products: code that reads a
// device tensor on the host ends in a segmentation fault here, as it would beside a GPU.
#pragma once

#include "kernels/cuda/open_device.h"

namespace caravan::host_runner {

/// Counts since the program began, for tests of what a step may not do.
struct DeviceActivity {
  std::int64_t allocations = 0;
  std::int64_t synchronizations = 0;
  std::int64_t launches = 0;  // kernels and products
};
DeviceActivity device_activity();

/// From now on allocations beyond this many bytes in all are refused, as on a GPU that is full.
void set_device_memory(std::int64_t bytes);

}  // namespace caravan::host_runner

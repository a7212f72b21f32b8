// The streams of a device as groups of ranks see them.
#pragma once

#include <memory>

#include "caravan/backend/device_streams.h"
#include "kernels/cuda/device_runtime.h"

namespace caravan::cuda {

/// Over the device of `runtime`, which outlives it. Resolved by the linker as open_device is.
std::unique_ptr<DeviceStreams> make_device_streams(DeviceRuntime& runtime);

}  // namespace caravan::cuda

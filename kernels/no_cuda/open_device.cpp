#include "kernels/cuda/open_device.h"
#include "caravan/core/error.h"

namespace caravan::cuda {

UsableDevices usable_devices() {
  return {0, "this build has no CUDA; configure with a CUDA toolkit installed (docs/notes/cuda-build.md)"};
}

OpenDevice open_device(int /*index*/) {
  fail<DeviceError>("no usable GPU: {}", usable_devices().reason_for_none);
}

}  // namespace caravan::cuda

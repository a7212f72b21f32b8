#include "kernels/cuda/open_device.h"
// A program without CUDA: there is no device, and it says so.
#include "caravan/core/error.h"

namespace caravan::cuda {

DeviceCount count_devices() {
  return {.count = 0,
          .reason_for_none =
              "no usable GPU: this program was built without CUDA; build it where a CUDA toolkit is "
              "installed (docs/notes/cuda-build.md), or choose device: cpu"};
}

std::string build_description() {
  return "without CUDA";
}

OpenDevice open_device(int /*index*/) {
  fail<DeviceError>("{}", count_devices().reason_for_none);
}

}  // namespace caravan::cuda

namespace caravan {

std::unique_ptr<Backend> make_cuda_backend(cuda::DeviceRuntime& /*runtime*/,
                                           std::unique_ptr<cudnn::PlannedAttention> /*attention*/) {
  fail<DeviceError>("{}", cuda::count_devices().reason_for_none);
}

}  // namespace caravan

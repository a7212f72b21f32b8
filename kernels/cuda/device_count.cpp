#include "kernels/cuda/device_count.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdlib>

#include "kernels/cuda/launch_status.h"

namespace caravan::cuda {

DeviceCount count_devices() {
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count == 0) {
    status = cudaErrorNoDevice;
  }
  if (status == cudaSuccess) {
    return {.count = count, .reason_for_none = ""};
  }
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return {
      .count = 0,
      .reason_for_none = fmt::format(
          "no usable GPU: {} ({}){}; {}", cudaGetErrorString(status), cudaGetErrorName(status),
          visible != nullptr ? fmt::format(", CUDA_VISIBLE_DEVICES is '{}'", visible) : "", remedy(status))};
}

std::string build_description() {
  return fmt::format("CUDA {}.{} for {}", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10,
                     CARAVAN_CUDA_ARCHITECTURES);
}

}  // namespace caravan::cuda

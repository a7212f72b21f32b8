#include "kernels/cuda/device_count.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdlib>

#include "kernels/cuda/launch_status.h"

namespace caravan::cuda {
namespace {

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace

std::string describe_driver(int driver, int runtime) {
  return fmt::format("{}, this program needs one for CUDA {}.0 or later",
                     driver == 0 ? "there is no driver" : "the driver is for CUDA " + version_text(driver),
                     runtime / 1000);
}

DeviceCount count_devices() {
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count == 0) {
    status = cudaErrorNoDevice;
  }
  if (status == cudaSuccess) {
    return {.count = count, .reason_for_none = ""};
  }
  std::string driver;
  bool is_broken = status != cudaErrorNoDevice && status != cudaErrorInsufficientDriver;
  if (int version = 0;
      status == cudaErrorInsufficientDriver && cudaDriverGetVersion(&version) == cudaSuccess) {
    driver = ": " + describe_driver(version, CUDART_VERSION);
    is_broken = version > 0;  // 0: there is none
  }
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return {
      .count = 0,
      .reason_for_none = fmt::format(
          "no usable GPU: {} ({}){}{}; {}", cudaGetErrorString(status), cudaGetErrorName(status), driver,
          visible != nullptr ? fmt::format(", CUDA_VISIBLE_DEVICES is '{}'", visible) : "", remedy(status)),
      .is_broken = is_broken};
}

std::string build_description() {
  return fmt::format("CUDA {} for {}", version_text(CUDART_VERSION), CARAVAN_CUDA_ARCHITECTURES);
}

}  // namespace caravan::cuda

#include "kernels/cuda/launch_status.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

#include "caravan/core/error.h"

namespace caravan::cuda {
namespace {

bool asked_by_environment() {
  const char* value = std::getenv("CARAVAN_SYNC_KERNELS");
  return value != nullptr && std::string_view(value) == "1";
}

std::atomic<bool>& sync_kernels() {
  static std::atomic<bool> is_on = asked_by_environment();
  return is_on;
}

}  // namespace

std::string remedy(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorInitializationError:
    case cudaErrorStubLibrary:
      return "see what nvidia-smi says of driver and GPU, or choose device: cpu";
    case cudaErrorSystemNotReady:
      return "a service of the driver does not run (nvidia-persistenced; with NVSwitch "
             "nvidia-fabricmanager): see what nvidia-smi says, or choose device: cpu";
    case cudaErrorDevicesUnavailable:
      return "another process has the GPU for itself: see nvidia-smi for processes and compute "
             "mode, or choose device: cpu";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return "this program has kernels for " CARAVAN_CUDA_ARCHITECTURES
             " only, or they are newer than the driver; configure with -DCARAVAN_CUDA_ARCHITECTURES= for "
             "this GPU, or update its driver";
    case cudaErrorMemoryAllocation:
      return "the GPU's memory is full";
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidValue:
    case cudaErrorLaunchOutOfResources:
      return "the launch asks for more than this GPU has; this is a bug in Caravan";
    case cudaErrorECCUncorrectable:
      return "the GPU's memory is damaged: have the machine looked at";
    default:  // faults of a running kernel are reported by whatever call comes next
      return sync_kernels()
                 ? "the program waited for every kernel, so the fault is in this one: run it under "
                   "compute-sanitizer"
                 : "an earlier kernel can be at fault: run again with --sync-kernels "
                   "(CARAVAN_SYNC_KERNELS=1) to have it named";
  }
}

std::string place_of(const NamedCall& call) {
  const std::string_view path = call.file;
  return fmt::format("{}:{}", path.substr(path.rfind('/') + 1), call.line);
}

void check_launch(const NamedCall& kernel, cudaError_t status) {
  if (status == cudaSuccess) {
    return;
  }
  fail<DeviceError>("GPU kernel {} ({}): {} ({}); {}", kernel.name, place_of(kernel),
                    cudaGetErrorName(status), cudaGetErrorString(status), remedy(status));
}

void after_launch(const NamedCall& kernel, cudaStream_t stream) {
  if (!sync_kernels()) {
    return;
  }
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_launch(kernel, cudaStreamIsCapturing(stream, &capture));
  if (capture == cudaStreamCaptureStatusNone) {
    check_launch(kernel, cudaStreamSynchronize(stream));
  }
}

void set_sync_kernels(bool is_on) {
  sync_kernels() = is_on;
}

bool syncs_kernels() {
  return sync_kernels();
}

}  // namespace caravan::cuda

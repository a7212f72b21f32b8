// LABELS cuda-build
// What is said of a launch that fails. Names and words of errors come from the runtime, which needs no GPU
// for that.
#include "kernels/cuda/launch_status.h"

#include <catch2/catch.hpp>
#include <string>

#include "caravan/core/error.h"

using namespace caravan;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

/// Leaves the switch off behind it.
struct SyncKernels {
  explicit SyncKernels(bool is_on) { cuda::set_sync_kernels(is_on); }
  ~SyncKernels() { cuda::set_sync_kernels(false); }
  SyncKernels(const SyncKernels&) = delete;
  SyncKernels& operator=(const SyncKernels&) = delete;
  SyncKernels(SyncKernels&&) = delete;
  SyncKernels& operator=(SyncKernels&&) = delete;
};

std::string message(cudaError_t status) {
  try {
    cuda::check_launch("rmsnorm_forward", status);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a launch that succeeds says nothing", "[cuda]") {
  CHECK_NOTHROW(cuda::check_launch("rmsnorm_forward", cudaSuccess));
}

TEST_CASE("a failed launch names the kernel, the error in CUDA's words, and a remedy", "[cuda]") {
  CHECK_THAT(message(cudaErrorInsufficientDriver),
             Contains("rmsnorm_forward") && Contains("cudaErrorInsufficientDriver") &&
                 Contains("driver version is insufficient") && Contains("nvidia-smi"));
  for (const cudaError_t status :
       {cudaErrorInitializationError, cudaErrorSystemDriverMismatch, cudaErrorCompatNotSupportedOnDevice,
        cudaErrorStubLibrary, cudaErrorSystemNotReady, cudaErrorDevicesUnavailable}) {
    CAPTURE(cudaGetErrorName(status));
    CHECK_THAT(message(status),
               Contains("nvidia-smi") && Contains("device: cpu") && !Contains("--sync-kernels"));
  }
  CHECK_THAT(message(cudaErrorSystemNotReady), Contains("nvidia-fabricmanager"));
  CHECK_THAT(message(cudaErrorDevicesUnavailable), Contains("another process"));
  CHECK_THAT(message(cudaErrorNoKernelImageForDevice), Contains("CARAVAN_CUDA_ARCHITECTURES"));
  CHECK_THAT(message(cudaErrorInvalidConfiguration), Contains("bug in Caravan"));
}

TEST_CASE("the place is that of the call, through whatever takes its name", "[cuda]") {
  const auto launch_like = [](cuda::NamedCall name) { cuda::check_launch(name, cudaErrorInvalidValue); };
  const int line = __LINE__ + 1;
  CHECK_THROWS_WITH(launch_like("rope"), StartsWith("GPU kernel rope (test_launch_status.cpp:" +
                                                    std::to_string(line) + "): cudaErrorInvalidValue ("));
  CHECK(cuda::place_of({"rope", "/a/folder/rope.cu", 86}) == "rope.cu:86");
  CHECK(cuda::place_of({"rope", "rope.cu", 86}) == "rope.cu:86");
}

TEST_CASE("a fault that shows late points to the switch that names its kernel", "[cuda]") {
  CHECK_THAT(message(cudaErrorIllegalAddress),
             Contains("illegal memory access") && Contains("--sync-kernels"));
  const SyncKernels on(true);
  CHECK_THAT(message(cudaErrorIllegalAddress), Contains("compute-sanitizer") && !Contains("--sync-kernels"));
}

TEST_CASE("the stream is waited for under the switch alone", "[cuda]") {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess) {
    return;  // below, the missing device is what shows that it was asked
  }
  CHECK_NOTHROW(cuda::after_launch("rope", nullptr));
  const SyncKernels on(true);
  CHECK_THROWS_AS(cuda::after_launch("rope", nullptr), DeviceError);
}

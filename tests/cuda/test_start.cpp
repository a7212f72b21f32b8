// LABELS cuda-build
// A program with GPU kernels starts on a machine without a driver, and says there what is
// missing. Where there is a GPU, the same calls work.
#include <cuda_runtime.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "caravan/core/error.h"
#include "kernels/cuda/device_count.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/open_device.h"
#include "kernels/cuda/products.h"

using namespace caravan;
using Catch::Matchers::Contains;
using Catch::Matchers::Matches;
using Catch::Matchers::StartsWith;

namespace {

/// Files mapped into this process: its shared libraries.
std::string mapped_files() {
  std::ifstream maps("/proc/self/maps");
  return {std::istreambuf_iterator<char>(maps), {}};
}

}  // namespace

TEST_CASE("the program is running although the driver's library is not linked", "[cuda]") {
  const std::string files = mapped_files();
  CHECK_THAT(files, Contains("libc.so"));        // the look is at the right place
  CHECK_THAT(files, !Contains("libcudart.so"));  // linked statically
  if (cuda::count_devices().count == 0) {
    CHECK_THAT(files, !Contains("libcuda.so"));  // the runtime opens it by itself where it exists
  }
}

TEST_CASE("without a usable GPU the reason is told in CUDA's words", "[cuda]") {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  const cuda::DeviceCount found = cuda::count_devices();
  if (status == cudaSuccess && count > 0) {
    CHECK(found.count == count);
    CHECK(found.reason_for_none.empty());
  } else {
    CHECK(found.count == 0);
    int driver = 0;
    const bool has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    CHECK(found.is_broken == (has_driver && status != cudaSuccess && status != cudaErrorNoDevice));
    CHECK_THAT(found.reason_for_none, StartsWith("no usable GPU: ") && Contains(cudaGetErrorString(status)) &&
                                          Contains("nvidia-smi"));
  }
}

TEST_CASE("a driver that is too old is told with its version and the one that is needed", "[cuda]") {
  CHECK(cuda::describe_driver(12040, 13010) ==
        "the driver is for CUDA 12.4, this program needs one for CUDA 13.0 or later");
  CHECK(cuda::describe_driver(0, 13000) ==
        "there is no driver, this program needs one for CUDA 13.0 or later");
  int driver = 0;
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver &&
      cudaDriverGetVersion(&driver) == cudaSuccess) {
    CHECK_THAT(cuda::count_devices().reason_for_none,
               Contains(": " + cuda::describe_driver(driver, CUDART_VERSION)));
  }
}

TEST_CASE("a kernel launched without a usable GPU is an error with its name", "[cuda]") {
  if (cuda::count_devices().count > 0) {
    return;
  }
  std::vector<float> values(8);
  const TensorView view(values.data(), DType::kFloat32, {8});
  CHECK_THROWS_WITH(cuda::add({.x = view, .z = view, .y = view}, nullptr),
                    Matches(R"(GPU kernel add \(elementwise\.cu:\d+\): )"
                            R"(cudaError(InsufficientDriver|NoDevice) \(.*\); see what nvidia-smi says.*)"));
}

TEST_CASE("cuBLASLt is opened, and needs a GPU to begin with", "[cuda]") {
  if (cuda::count_devices().count == 0) {
    CHECK_THROWS_WITH(cuda::Products(),
                      Matches(R"(cublasLtCreate \(products\.cpp:\d+\): CUBLAS_STATUS_NOT_INITIALIZED; )"
                              R"(see what nvidia-smi says of driver and GPU, or choose device: cpu)"));
    CHECK_THROWS_WITH(cuda::open_device(0), StartsWith("no usable GPU: "));
    CHECK_THAT(mapped_files(), Contains("libcublasLt.so"));
    return;
  }
  CHECK_THAT(cuda::Products().version(), Contains("."));
}

TEST_CASE("CARAVAN_CUBLASLT names the library, and a place that has none is told", "[cuda]") {
  setenv("CARAVAN_CUBLASLT", "/no/such/folder/libcublasLt.so", 1);
  CHECK_THROWS_WITH(cuda::Products(), Contains("tried /no/such/folder/libcublasLt.so (no such file)") &&
                                          Contains("CARAVAN_CUBLASLT"));
  unsetenv("CARAVAN_CUBLASLT");
}

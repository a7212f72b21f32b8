// A program without CUDA: nobody has a runtime to ask with.
#include "kernels/cuda/device_streams.h"

#include "caravan/core/error.h"

namespace caravan::cuda {

std::unique_ptr<DeviceStreams> make_device_streams(DeviceRuntime& /*runtime*/) {
  CARAVAN_CHECK(false, "streams of a device in a program without CUDA");
  return nullptr;
}

}  // namespace caravan::cuda

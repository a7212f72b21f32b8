#include "host_runner/emulated_device.h"

#include "host_runner/emulated_memory.h"
#include "host_runner/emulated_runtime.h"

namespace caravan::host_runner {

DeviceActivity device_activity() {
  return DeviceMemory::instance().activity;
}

void set_device_memory(std::int64_t bytes) {
  DeviceMemory::instance().set_limit(bytes);
}

}  // namespace caravan::host_runner

namespace caravan::cuda {

DeviceCount count_devices() {
  return {.count = 1, .reason_for_none = ""};
}

std::string build_description() {
  return "emulated CUDA";
}

OpenDevice open_device(int index) {
  OpenDevice device{std::make_unique<host_runner::EmulatedRuntime>(index), nullptr};
  device.backend = make_cuda_backend(*device.runtime);
  return device;
}

}  // namespace caravan::cuda

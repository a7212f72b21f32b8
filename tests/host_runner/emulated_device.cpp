#include "host_runner/emulated_device.h"

#include "host_runner/emulated_environment.h"
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
  const std::string broken = host_runner::from_environment("CARAVAN_EMULATED_BROKEN", std::string());
  return {.count = broken.empty() ? 1 : 0, .reason_for_none = broken, .is_broken = !broken.empty()};
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

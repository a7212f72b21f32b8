// What tests of the whole program tell the emulated device, each rank its own: CARAVAN_EMULATED_BYTES of
// memory (16 GiB else), CARAVAN_EMULATED_BUS_ID (one per process else), CARAVAN_EMULATED_UUID of its memory
// (the bus id else), CARAVAN_EMULATED_NAME, CARAVAN_EMULATED_WORKSPACE: the bytes that products are said
// to take (none else), CARAVAN_EMULATED_FAULT: the number of the launch that fails (none else), and
// CARAVAN_EMULATED_BROKEN: why its driver or GPU cannot be used (they can else).
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace caravan::host_runner {

inline std::string from_environment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}
inline std::int64_t from_environment(const char* name, std::int64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::atoll(value) : otherwise;
}

inline std::string emulated_bus_id() {
  return from_environment("CARAVAN_EMULATED_BUS_ID", "process " + std::to_string(getpid()));
}

}  // namespace caravan::host_runner

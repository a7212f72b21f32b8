// Where memory lives. `kNone` is memory that does not exist: views on it carry shapes only, for planning.
#pragma once

#include <cstdint>

namespace caravan {

enum class DeviceKind : std::uint8_t { kCpu, kCuda, kNone };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;

  friend bool operator==(const Device&, const Device&) = default;
};

}  // namespace caravan

// The memory of the emulated device, and what it knows of the host's.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "host_runner/emulated_device.h"

namespace caravan::host_runner {

/// All memory of the device, closed but while work of a queue runs (DeviceQueues::Gate).
class DeviceMemory {
 public:
  enum class Kind : std::uint8_t { kDevice, kPinned, kPageable };

  /// Never destroyed, as DeviceQueues.
  static DeviceMemory& instance();

  /// Zeros.
  void* allocate(std::int64_t bytes);
  void* allocate_pinned(std::int64_t bytes);
  /// As cudaFree and cudaFreeHost: waits for the whole device, since work that is enqueued may use it.
  /// Whoever touches it afterwards faults: the addresses are never given out again.
  void release(void* data);
  Kind kind_of(const void* data) const;

  void open();
  void close();
  void set_limit(std::int64_t bytes) { limit_ = bytes; }
  std::int64_t limit() const { return limit_; }
  std::int64_t free_bytes() const { return limit_ - used_; }

  DeviceActivity activity;

 private:
  struct Piece {
    std::size_t mapped;
    std::int64_t bytes;
    Kind kind;
  };
  DeviceMemory();
  void* map(std::int64_t bytes, Kind kind);
  void protect(int access);

  mutable std::recursive_mutex mutex_;
  std::map<const void*, Piece> pieces_;
  std::int64_t used_ = 0;
  std::int64_t limit_;
  int is_open_ = 0;
};

}  // namespace caravan::host_runner

#include "host_runner/emulated_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <iterator>

#include "caravan/core/error.h"
#include "host_runner/device_queues.h"
#include "host_runner/emulated_environment.h"

namespace caravan::host_runner {

DeviceMemory& DeviceMemory::instance() {
  static DeviceMemory& memory = *new DeviceMemory;
  return memory;
}

DeviceMemory::DeviceMemory() : limit_(from_environment("CARAVAN_EMULATED_BYTES", std::int64_t{1} << 34)) {
  DeviceQueues::instance().set_gate([](bool begins) { begins ? instance().open() : instance().close(); });
}

void* DeviceMemory::allocate(std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  CARAVAN_CHECK(!DeviceQueues::instance().is_recording(), "{} bytes are allocated inside a recording", bytes);
  if (used_ + bytes > limit_) {
    fail<DeviceError>(
        "out of device memory: could not allocate {} bytes on the emulated device, {} of {} bytes are free; "
        "use fewer rows per batch (training.micro_batch), a smaller data.max_seq_len, training.recompute or "
        "more ranks (caravan train --dry-run shows the memory plan)",
        bytes, limit_ - used_, limit_);
  }
  void* data = map(bytes, Kind::kDevice);
  used_ += bytes;
  ++activity.allocations;
  return data;
}

void* DeviceMemory::allocate_pinned(std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  return map(bytes, Kind::kPinned);
}

void* DeviceMemory::map(std::int64_t bytes, Kind kind) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t rounded = (static_cast<std::size_t>(bytes) + page) / page * page;
  const bool is_closed = kind == Kind::kDevice && is_open_ == 0;
  void* data = mmap(nullptr, rounded, is_closed ? PROT_NONE : PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CARAVAN_CHECK(data != MAP_FAILED, "no memory for {} emulated bytes", bytes);
  pieces_[data] = {rounded, bytes, kind};
  return data;
}

void DeviceMemory::release(void* data) {
  DeviceQueues::instance().finish();
  const std::lock_guard lock(mutex_);
  const auto found = pieces_.find(data);
  if (found != pieces_.end()) {
    used_ -= found->second.kind == Kind::kDevice ? found->second.bytes : 0;
    // Closed for ever instead of given back: the next piece would come to lie where this one was, and work
    // that goes on using it would not be noticed.
    void* const closed = mmap(data, found->second.mapped, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    CARAVAN_CHECK(closed == data, "emulated memory at {} cannot be closed", data);
    pieces_.erase(found);
  }
}

DeviceMemory::Kind DeviceMemory::kind_of(const void* data) const {
  const std::lock_guard lock(mutex_);
  const auto after = pieces_.upper_bound(data);
  if (after == pieces_.begin()) {
    return Kind::kPageable;
  }
  const auto& [begin, piece] = *std::prev(after);
  return data < static_cast<const char*>(begin) + piece.mapped ? piece.kind : Kind::kPageable;
}

void DeviceMemory::open() {
  const std::lock_guard lock(mutex_);
  if (is_open_++ == 0) {
    protect(PROT_READ | PROT_WRITE);
  }
}

void DeviceMemory::close() {
  const std::lock_guard lock(mutex_);
  if (--is_open_ == 0) {
    protect(PROT_NONE);
  }
}

void DeviceMemory::protect(int access) {
  for (const auto& [data, piece] : pieces_) {
    if (piece.kind == Kind::kDevice) {
      mprotect(const_cast<void*>(data), piece.mapped, access);
    }
  }
}

}  // namespace caravan::host_runner

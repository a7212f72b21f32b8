// A LIFO allocator in one Buffer: activations and scratch live here, so a step allocates nothing.
#pragma once

#include <cstdint>
#include <string>

#include "caravan/backend/buffer.h"

namespace caravan {

/// Allocations are aligned to 64 bytes and freed in reverse order, by releasing to a mark. The high-water
/// mark is recorded: an arena on DeviceKind::kNone with unlimited size measures what a run will need.
class Arena {
 public:
  Arena(std::string name, Buffer buffer) : name_(std::move(name)), buffer_(std::move(buffer)) {}

  /// Contiguous view of uninitialised memory; `what` names it in the error when the arena is full.
  TensorView allocate(const char* what, DType dtype, const Shape& shape);

  using Mark = std::int64_t;
  Mark mark() const { return used_; }
  /// Frees everything allocated after `mark`.
  void release(Mark mark);

  std::int64_t high_water() const { return high_water_; }
  std::int64_t capacity() const { return buffer_.bytes(); }

 private:
  std::string name_;
  Buffer buffer_;
  std::int64_t used_ = 0;
  std::int64_t high_water_ = 0;
};

/// Releases an arena to where it was.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;
  ArenaScope(ArenaScope&&) = delete;
  ArenaScope& operator=(ArenaScope&&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace caravan

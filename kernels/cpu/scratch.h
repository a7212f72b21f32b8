// Memory ops need inside one call: grows to the largest request and stays, so that a step allocates nothing
// once all shapes have been seen.
#pragma once

#include <cstdint>

#include "caravan/backend/buffer.h"
#include "caravan/core/parallel_for.h"

namespace caravan::cpu {

class ScratchBuffer {
 public:
  /// At least `count` elements, 64-byte aligned, contents unspecified; valid until the next call.
  template <class T>
  T* get(std::int64_t count) {
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    if (bytes > buffer_.bytes()) {
      buffer_ = Buffer();
      buffer_ = allocate_host(bytes);
    }
    return static_cast<T*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

/// What a backend keeps between calls, shared by its threads during one.
struct CpuScratch {
  ScratchBuffer keys;
  ScratchBuffer threads;
  ScratchBuffer ranges;
  ScratchBuffer partials;
};

/// A piece of memory for each thread, reserved before the parallel region: a thread that gets no work in the
/// first step would else allocate in a later one. `T* mine()` inside the region.
template <class T>
class ThreadScratch {
 public:
  ThreadScratch(ScratchBuffer& buffer, std::int64_t count)
      : stride_((count + kLine - 1) / kLine * kLine), data_(buffer.get<T>(stride_ * thread_count())) {}
  T* mine() const { return data_ + stride_ * thread_index(); }

 private:
  static constexpr std::int64_t kLine = 64;  // elements: threads do not share cache lines
  std::int64_t stride_;
  T* data_;
};

/// Rows per piece of work, so that a piece outweighs handing it to a thread.
inline std::int64_t grain_rows(std::int64_t width) {
  constexpr std::int64_t kElementsPerPiece = 16384;
  return width >= kElementsPerPiece ? 1 : kElementsPerPiece / (width > 0 ? width : 1);
}
/// The same for plain elements; a multiple of every vector width.
inline constexpr std::int64_t kGrainElements = 16384;

}  // namespace caravan::cpu

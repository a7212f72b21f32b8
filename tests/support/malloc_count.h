// Counts what a program takes from malloc and its relatives (operator new goes through them), in all threads:
// include it in the one source file of a program linked with glibc. Under the sanitizers, which have their
// own malloc, nothing is counted.
#pragma once

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace caravan {

inline std::atomic<std::int64_t> allocations{0};
inline std::atomic<std::int64_t> live_bytes{0};  // taken and not given back
inline std::atomic<std::int64_t> peak_bytes{0};  // the most there were; may be set back to live_bytes
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kCountsAllocations = false;
#else
inline constexpr bool kCountsAllocations = true;
#endif

namespace detail {

inline void* count_taken(void* block) {
  const std::int64_t live = live_bytes += static_cast<std::int64_t>(malloc_usable_size(block));
  for (std::int64_t peak = peak_bytes; live > peak && !peak_bytes.compare_exchange_weak(peak, live);) {
  }
  ++allocations;
  return block;
}
inline void count_given(void* block) {
  live_bytes -= static_cast<std::int64_t>(malloc_usable_size(block));
}

}  // namespace detail
}  // namespace caravan

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {

void* __libc_malloc(std::size_t bytes);                           // NOLINT: glibc's name
void* __libc_calloc(std::size_t count, std::size_t bytes);        // NOLINT: glibc's name
void* __libc_realloc(void* block, std::size_t bytes);             // NOLINT: glibc's name
void* __libc_memalign(std::size_t alignment, std::size_t bytes);  // NOLINT: glibc's name
void __libc_free(void* block);                                    // NOLINT: glibc's name

// NOLINTBEGIN(misc-definitions-in-headers): one source file of a program includes this, by the rule above
void* malloc(std::size_t bytes) {
  return caravan::detail::count_taken(__libc_malloc(bytes));
}
void* calloc(std::size_t count, std::size_t bytes) {
  return caravan::detail::count_taken(__libc_calloc(count, bytes));
}
void* realloc(void* block, std::size_t bytes) {
  caravan::detail::count_given(block);
  return caravan::detail::count_taken(__libc_realloc(block, bytes));
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  return caravan::detail::count_taken(__libc_memalign(alignment, bytes));
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return memalign(alignment, bytes);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) {
  *block = memalign(alignment, bytes);
  return *block == nullptr ? ENOMEM : 0;
}
void free(void* block) {
  caravan::detail::count_given(block);
  __libc_free(block);
}
// NOLINTEND(misc-definitions-in-headers)

}  // extern "C"
#endif

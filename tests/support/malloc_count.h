// Counts what a program takes from malloc and its relatives (operator new goes through them), in all threads:
// include it in the one source file of a program linked with glibc. Under the sanitizers, which have their
// own malloc, nothing is counted.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace caravan {

inline std::atomic<std::int64_t> allocations{0};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kCountsAllocations = false;
#else
inline constexpr bool kCountsAllocations = true;
#endif

}  // namespace caravan

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {

void* __libc_malloc(std::size_t bytes);                           // NOLINT: glibc's name
void* __libc_calloc(std::size_t count, std::size_t bytes);        // NOLINT: glibc's name
void* __libc_realloc(void* block, std::size_t bytes);             // NOLINT: glibc's name
void* __libc_memalign(std::size_t alignment, std::size_t bytes);  // NOLINT: glibc's name

// NOLINTBEGIN(misc-definitions-in-headers): one source file of a program includes this, by the rule above
void* malloc(std::size_t bytes) {
  ++caravan::allocations;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  ++caravan::allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* block, std::size_t bytes) {
  ++caravan::allocations;
  return __libc_realloc(block, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  ++caravan::allocations;
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) {
  ++caravan::allocations;
  *block = __libc_memalign(alignment, bytes);
  return *block == nullptr ? ENOMEM : 0;
}
// NOLINTEND(misc-definitions-in-headers)

}  // extern "C"
#endif

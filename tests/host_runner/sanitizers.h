// The sanitizers' interfaces as functions that do nothing where the sanitizer is absent. ThreadSanitizer is
// special: the runner itself is compiled without it (its bookkeeping is no part of the kernel's memory
// accesses) and told by CARAVAN_HOST_RUNNER_TSAN that the program has it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CARAVAN_HOST_RUNNER_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
// NOLINTBEGIN(readability-identifier-naming)
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
// NOLINTEND(readability-identifier-naming)
}
#endif

namespace caravan::host_runner {

#if defined(CARAVAN_HOST_RUNNER_TSAN)
/// Each block of a launch has threads, stacks and shared memory of its own, so nothing orders it after
/// another block.
inline constexpr bool kIndependentBlocks = true;
inline void tsan_release(void* slot) {
  __tsan_release(slot);
}
inline void tsan_acquire(void* slot) {
  __tsan_acquire(slot);
}
/// Accesses made by the runner on a thread's behalf.
inline void note_read(const void* address, std::size_t bytes) {
  __tsan_read_range(const_cast<void*>(address), bytes);
}
inline void note_write(void* address, std::size_t bytes) {
  __tsan_write_range(address, bytes);
}
/// While it lives, what this thread does is the runner's own work. The runner is not instrumented, but
/// memset, memcpy and the heap are watched whoever calls them.
class RunnerWork {
 public:
  RunnerWork() { begin(); }
  ~RunnerWork() { end(); }
  static void begin() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  static void end() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  RunnerWork(const RunnerWork&) = delete;
  RunnerWork& operator=(const RunnerWork&) = delete;
  RunnerWork(RunnerWork&&) = delete;
  RunnerWork& operator=(RunnerWork&&) = delete;
};
#else
inline constexpr bool kIndependentBlocks = false;
inline void tsan_release(void* /*slot*/) {}
inline void tsan_acquire(void* /*slot*/) {}
inline void note_read(const void* /*address*/, std::size_t /*bytes*/) {}
inline void note_write(void* /*address*/, std::size_t /*bytes*/) {}
struct RunnerWork {
  RunnerWork() {}  // NOLINT(modernize-use-equals-default): else the variable counts as unused
};
#endif

#if defined(__SANITIZE_ADDRESS__)
inline void poison(void* address, std::size_t bytes) {
  __asan_poison_memory_region(address, bytes);
}
inline void unpoison(void* address, std::size_t bytes) {
  __asan_unpoison_memory_region(address, bytes);
}
#else
inline void poison(void* /*address*/, std::size_t /*bytes*/) {}
inline void unpoison(void* /*address*/, std::size_t /*bytes*/) {}
#endif

}  // namespace caravan::host_runner

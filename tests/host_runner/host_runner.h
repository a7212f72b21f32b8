// CUDA's language on the host, for tests: what a kernel file finds behind kernels/cuda/device.h when g++
// compiles it. Each thread of a block is a fiber of one OS thread, and blocks run one after another, so
// barriers, shared memory, warp exchanges and atomics mean what they mean on a GPU, in an order the test
// chooses. Not here: clusters, grid-wide waiting. How it works and what it finds:
// docs/notes/host-kernels.md.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "caravan/core/error.h"

// Names, spelling and empty keywords are CUDA's. There is no __shared__: shared memory comes from
// SharedMemory alone. NOLINTBEGIN(readability-identifier-naming)
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3() = default;
  // NOLINTNEXTLINE(google-explicit-constructor)
  constexpr dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

// The runner writes them before it resumes a thread; no two threads run at once.
inline uint3 threadIdx;
inline uint3 blockIdx;
inline dim3 blockDim;
inline dim3 gridDim;
// NOLINTEND(readability-identifier-naming)

namespace caravan::host_runner {

/// A kernel broke a rule of the execution model. what(): kernel, block, schedule, and which threads wait or
/// have returned at which lines.
class KernelError : public Error {
 public:
  using Error::Error;
};

/// The order in which ready threads of a block run; blocks follow it too (reverse, or shuffled by the seed).
enum class Schedule : std::uint8_t {
  kForward,       // the lowest ready thread
  kReverse,       // the highest ready thread
  kRandomThread,  // any ready thread
  kRandomWarp,    // warps in a random order of precedence: one runs ahead of all others
};
const char* schedule_name(Schedule schedule);

struct Options {
  Schedule schedule = Schedule::kForward;
  std::uint64_t seed = 1;
};
/// For every launch from here on.
void set_options(const Options& options);

/// Puts work into a queue of the emulated device (device_queues.h); without one it runs at once.
void enqueue(CUstream_st* stream, std::function<void()> work);

/// Remembers that a kernel was launched: its place in the program, once for each kernel, goes to the file
/// that CARAVAN_LAUNCHED_KERNELS names. tests/host_runner/check_launched.py compares them with all there are.
void note_launch(const void* kernel);

/// Told before the first block of every launch (true) and after its last (false), also when the kernel fails;
/// null: nobody.
using LaunchGate = void (*)(bool begins);
void set_launch_gate(LaunchGate gate);

/// Shared memory that a block may have: sm_80's unless told otherwise, which the portable kernels keep to.
inline constexpr std::size_t kPortableSharedBytes = 163UL * 1024;
inline constexpr std::size_t kHopperSharedBytes = 227UL * 1024;
/// For every launch from here on; returns what it was.
std::size_t set_most_shared_bytes(std::size_t bytes);

/// Blocks that a grid may have in y, and in z: a GPU's unless told otherwise.
inline constexpr unsigned kMostBlocksYz = 65535;
unsigned most_blocks_yz();
/// For every launch from here on.
void set_most_blocks_yz(unsigned blocks);

/// Races reported so far by ThreadSanitizer; 0 in builds without it.
int race_reports();

/// Rows that ldmatrix has read so far by a later pass over shared memory than the first: of eight rows of 16
/// bytes that it reads at once, those that share their 4 of the 32 banks with another.
std::int64_t bank_conflicts();

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

/// A place in a kernel's source.
struct Site {
  const char* file;
  int line;
};

/// Runs body(context) as every thread of every block, to the end. Throws KernelError, or what the body
/// throws.
void run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*),
              void* context);

/// The k-th piece of this block's dynamic shared memory for every thread that asks for its k-th: full of NaN
/// when the block begins, with a gap behind it that ASan guards and that otherwise reads as NaN.
void* take_shared(int piece, std::size_t bytes, Site site);

/// Waits until every lane of `mask` has come with the same operation; the last to come calls resolve on the
/// lanes' payloads (null outside the mask), which lie on their stacks.
using WarpResolve = void (*)(void* const (&payloads)[32], unsigned mask);
void warp_exchange(const char* operation, unsigned mask, WarpResolve resolve, void* payload, Site site);
/// Ends the launch with a KernelError that names the calling thread.
[[noreturn]] void fail_thread(std::string what, Site site);
/// 0 to 31.
int lane_index();

/// 64 bits of a lane; source is the lane whose value is wanted.
struct ShufflePayload {
  std::uint64_t value;
  int source;
  std::uint64_t result;
};
void shuffle(const char* operation, unsigned mask, ShufflePayload& payload, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);

template <class T>
T shuffle_from(const char* operation, unsigned mask, T value, int source, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  ShufflePayload payload{0, source, 0};
  std::memcpy(&payload.value, &value, sizeof(T));
  shuffle(operation, mask, payload, site);
  std::memcpy(&value, &payload.result, sizeof(T));
  return value;
}

/// value(old) replaces *address atomically; returns old. ThreadSanitizer sees an atomic access without order.
template <class T, class Bits, class Value>
T atomic_update(T* address, const Value& value) {
  static_assert(sizeof(T) == sizeof(Bits));
  auto* bits = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    T old{};
    std::memcpy(&old, &old_bits, sizeof(T));
    const T fresh = value(old);
    Bits fresh_bits{};
    std::memcpy(&fresh_bits, &fresh, sizeof(T));
    if (__atomic_compare_exchange_n(bits, &old_bits, fresh_bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return old;
    }
  }
}

}  // namespace caravan::host_runner

// NOLINTBEGIN(readability-identifier-naming)

// ---- barriers and warps. The default arguments give the line of the call; clang 14 has no
// std::source_location.

#define CARAVAN_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

void __syncthreads(CARAVAN_SITE);
void __syncwarp(unsigned mask = 0xffffffffU, CARAVAN_SITE);

template <class T>
T __shfl_sync(unsigned mask, T value, int source, CARAVAN_SITE) {
  return caravan::host_runner::shuffle_from("__shfl_sync", mask, value, source, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, CARAVAN_SITE) {
  return caravan::host_runner::shuffle_from("__shfl_xor_sync", mask, value,
                                            caravan::host_runner::lane_index() ^ lanes, {file, line});
}
/// A lane without a source keeps its own value, as on the GPU.
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta, CARAVAN_SITE) {
  const int lane = caravan::host_runner::lane_index();
  return caravan::host_runner::shuffle_from("__shfl_up_sync", mask, value,
                                            lane >= delta ? lane - delta : lane, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta, CARAVAN_SITE) {
  const int lane = caravan::host_runner::lane_index();
  return caravan::host_runner::shuffle_from("__shfl_down_sync", mask, value,
                                            lane + delta < 32 ? lane + delta : lane, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CARAVAN_SITE) {
  return caravan::host_runner::ballot(mask, predicate != 0, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, CARAVAN_SITE) {
  return caravan::host_runner::ballot(mask, predicate != 0, {file, line}) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate, CARAVAN_SITE) {
  return caravan::host_runner::ballot(mask, predicate == 0, {file, line}) == 0 ? 1 : 0;
}

// ---- atomics: relaxed, as CUDA's
// NOLINTBEGIN(readability-non-const-parameter): they write

inline float atomicAdd(float* address, float value) {
  return caravan::host_runner::atomic_update<float, std::uint32_t>(address,
                                                                   [&](float old) { return old + value; });
}
inline int atomicAdd(int* address, int value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline unsigned atomicAdd(unsigned* address, unsigned value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

// NOLINTEND(readability-non-const-parameter)

// ---- arithmetic; more accurate than the GPU's own

inline float __expf(float x) {
  return std::exp(x);
}
inline float rsqrtf(float x) {
  return 1.0F / std::sqrt(x);
}
inline unsigned __float_as_uint(float x) {
  return __builtin_bit_cast(unsigned, x);
}
inline float __uint_as_float(unsigned x) {
  return __builtin_bit_cast(float, x);
}

/// Place of the lowest one, counted from 1; 0 for none.
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}

#undef CARAVAN_SITE
// NOLINTEND(readability-identifier-naming)

// The seam between kernels and what compiles them: the only header a .cu file includes for device things.
// nvcc finds CUDA behind it, g++ the host runner of the tests (docs/notes/host-kernels.md), and the kernel is
// one text for both.
//
// House rules that keep it so: a .cu file holds kernels and their launchers, nothing else; shared memory
// comes from SharedMemory, PTX stands in tile_ops.h; blocks are whole warps, which leave together; no block
// waits for another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "caravan/core/dtype.h"
#include "kernels/cuda/named_call.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/launch_status.h"
#else
#include <host_runner/host_runner.h>
#endif

namespace caravan::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

// ---- elements. Storage types are core's own; arithmetic is in float.

__device__ inline float load_float(float value) {
  return value;
}
/// A bfloat16 is the upper half of a float.
__device__ inline float load_float(BFloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16U);
}
__device__ inline float load_float(Float16 value) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(value.bits));
#else
  return to_float(value);
#endif
}

/// To the nearest T, ties to even.
template <class T>
__device__ T store_float(float value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
#if defined(__CUDACC__)
    return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
    return to_bfloat16(value);
#endif
  } else if constexpr (std::is_same_v<T, Float16>) {
#if defined(__CUDACC__)
    return Float16{__half_as_ushort(__float2half_rn(value))};
#else
    return to_float16(value);
#endif
  } else {
    return value;
  }
}

// ---- memory in packs

/// Elements in one access of 16 bytes.
template <class T>
inline constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

/// N neighbouring elements that are read and written in one access; their address is a multiple of their
/// size.
template <class T, int N = kPackSize<T>>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16);
  T values[N];
  __device__ T& operator[](int i) { return values[i]; }
  __device__ const T& operator[](int i) const { return values[i]; }
};

#if defined(__CUDACC__)
/// The machine word of a pack: the compiler may split a struct's copy, but not a vector's.
template <int kBytes>
struct PackWord;
template <>
struct PackWord<16> {
  using Type = uint4;
};
template <>
struct PackWord<8> {
  using Type = uint2;
};
template <>
struct PackWord<4> {
  using Type = unsigned;
};
template <>
struct PackWord<2> {
  using Type = unsigned short;
};
#endif

template <int N, class T>
__device__ Pack<T, N> load_pack(const T* from) {
#if defined(__CUDACC__)
  using Word = typename PackWord<static_cast<int>(sizeof(Pack<T, N>))>::Type;
  const Word word = *reinterpret_cast<const Word*>(from);
  Pack<T, N> pack;
  memcpy(&pack, &word, sizeof(word));
  return pack;
#else
  return *reinterpret_cast<const Pack<T, N>*>(from);
#endif
}

template <int N, class T>
__device__ void store_pack(T* to, const Pack<T, N>& pack) {
#if defined(__CUDACC__)
  using Word = typename PackWord<static_cast<int>(sizeof(Pack<T, N>))>::Type;
  Word word;
  memcpy(&word, &pack, sizeof(word));
  *reinterpret_cast<Word*>(to) = word;
#else
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
#endif
}

/// True when every pointer may be accessed in packs of 16 bytes; null pointers may.
template <class... Pointers>
bool is_aligned(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

// ---- shared memory

/// Pieces of the block's dynamic shared memory. Every thread takes the same pieces in the same order; their
/// sum, each rounded up to 16 bytes, is LaunchShape::shared_bytes. Contents are undefined: the host runner
/// fills them with NaN.
class SharedMemory {
 public:
  template <class T>
  __device__ T* take(int count
#if !defined(__CUDACC__)
                     ,
                     const char* file = __builtin_FILE(), int line = __builtin_LINE()
#endif
  ) {
    static_assert(alignof(T) <= 16);
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
#if defined(__CUDACC__)
    extern __shared__ __align__(128) unsigned char shared_memory[];
    T* piece = reinterpret_cast<T*>(shared_memory + used_);
    used_ += (bytes + 15) / 16 * 16;
    return piece;
#else
    return static_cast<T*>(host_runner::take_shared(used_++, bytes, {file, line}));
#endif
  }

 private:
#if defined(__CUDACC__)
  std::size_t used_ = 0;  // bytes
#else
  int used_ = 0;  // pieces
#endif
};

// ---- reductions

template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, lanes);
  }
  return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  }
  return value;
}

/// Sum over the block, the same bits in every thread. `scratch`: one T per warp. All threads call it; the
/// barrier at its end makes scratch free again.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  value = warp_sum(value);
  if (thread % kWarpSize == 0) {
    scratch[thread / kWarpSize] = value;
  }
  __syncthreads();
  T sum{};
  for (int warp = 0; warp < warps; ++warp) {
    sum += scratch[warp];
  }
  __syncthreads();
  return sum;
}

// ---- launching

struct LaunchShape {
  dim3 grid{};
  dim3 block{};
  std::size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

/// Blocks that a grid has at most in y, and in z; in x there may be 2^31 − 1.
inline std::int64_t most_blocks_yz() {
#if defined(__CUDACC__)
  return 65535;
#else
  return host_runner::most_blocks_yz();
#endif
}

/// Runs `kernel` on the stream; on the host, to its end, at once where there is no stream. `name`, a literal,
/// stands in error messages (DeviceError) with the place of this call.
template <class... Parameters>
void launch(NamedCall name, void (*kernel)(Parameters...), const LaunchShape& shape,
            std::type_identity_t<Parameters>... arguments) {
#if defined(__CUDACC__)
  constexpr std::size_t kSharedBytesWithoutAsking = 48UL * 1024;
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shape.shared_bytes > kSharedBytesWithoutAsking) {
    check_launch(name, cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(shape.shared_bytes)));
  }
  void* pointers[] = {static_cast<void*>(&arguments)...};
  check_launch(
      name, cudaLaunchKernel(function, shape.grid, shape.block, pointers, shape.shared_bytes, shape.stream));
  after_launch(name, shape.stream);
#else
  host_runner::note_launch(reinterpret_cast<const void*>(kernel));
  host_runner::enqueue(shape.stream, [=] {
    auto call = [&] { kernel(arguments...); };
    host_runner::run_grid(
        name.name, shape.grid, shape.block, shape.shared_bytes,
        [](void* context) { (*static_cast<decltype(call)*>(context))(); }, &call);
  });
#endif
}

}  // namespace caravan::cuda

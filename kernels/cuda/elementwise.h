// Kernels over elements that know nothing of each other, as an op with apply<N>(at): N elements from `at` on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "caravan/core/tensor_view.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch_checks.h"

namespace caravan::cuda {

inline constexpr int kElementwiseThreads = 256;
/// Enough blocks to fill any GPU several times; beyond that threads take more than one pack.
inline constexpr std::int64_t kMostElementwiseBlocks = 4096;

/// op in packs of N, the rest of less than N one by one.
template <int N, class Op>
__global__ void __launch_bounds__(kElementwiseThreads) elementwise_kernel(Op op, std::int64_t count) {
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x) * kElementwiseThreads + static_cast<std::int64_t>(threadIdx.x);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kElementwiseThreads;
  const std::int64_t packs = count / N;
  for (std::int64_t pack = first; pack < packs; pack += step) {
    op.template apply<N>(pack * N);
  }
  if (first < count % N) {
    op.template apply<1>(packs * N + first);
  }
}

inline dim3 elementwise_grid(std::int64_t threads) {
  const std::int64_t blocks = (threads + kElementwiseThreads - 1) / kElementwiseThreads;
  return {static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, kMostElementwiseBlocks))};
}

/// In packs of N when `in_packs`, else one by one (a view that is not aligned).
template <int N, class Op>
void launch_elementwise(NamedCall name, const Op& op, std::int64_t count, bool in_packs,
                        cudaStream_t stream) {
  if (count == 0) {
    return;
  }
  if (in_packs) {
    launch(name, elementwise_kernel<N, Op>,
           {.grid = elementwise_grid(count / N + N), .block = kElementwiseThreads, .stream = stream}, op,
           count);
  } else {
    launch(name, elementwise_kernel<1, Op>,
           {.grid = elementwise_grid(count), .block = kElementwiseThreads, .stream = stream}, op, count);
  }
}

/// Calls body.template operator()<T>() for float32, bfloat16 or float16.
template <class Body>
void with_storage(const TensorView& view, Body&& body) {
  if (view.dtype() == DType::kBFloat16) {
    return body.template operator()<BFloat16>();
  }
  if (view.dtype() == DType::kFloat16) {
    return body.template operator()<Float16>();
  }
  check_float32(view);
  return body.template operator()<float>();
}

/// For the gradient of a weight stored as T: calls body.template operator()<G>() for T or float32.
template <class T, class Body>
void with_gradient(const TensorView& view, Body&& body) {
  if constexpr (!std::is_same_v<T, float>) {
    if (view.dtype() == DTypeOf<T>::kValue) {
      return body.template operator()<T>();
    }
  }
  check_float32(view);
  return body.template operator()<float>();
}

}  // namespace caravan::cuda

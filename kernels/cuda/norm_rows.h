// How the kernels of RMSNorm divide a row among a block's threads.
#pragma once

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {

inline constexpr int kMostNormThreads =
    512;  // of a block; the usual one has a pack of the row in each thread
inline constexpr int kNormScratchFloats = kMostNormThreads / kWarpSize;

/// kPacks > 0: a thread has `kPacks` packs of N columns, width ≤ kPacks · N · threads; body(column, k) for
/// its k-th. kPacks = 0: rows of any width.
template <int N, int kPacks, class Body>
__device__ void for_columns(int width, Body&& body) {
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int column = (k * threads + thread) * N;
      if (column < width) {
        body(column, k);
      }
    }
  } else {
    for (int column = thread * N; column < width; column += threads * N) {
      body(column, 0);
    }
  }
}

/// Calls body.template operator()<N, kPacks>(threads) for the widest accesses that the rows allow.
template <class T, class Body>
void with_packs(int width, bool is_aligned, Body&& body) {
  constexpr int kN = kPackSize<T>;
  constexpr unsigned kThreadsOfAnyWidth = 256;
  const int packs = width / kN;
  const auto threads = [&](int of_thread) {
    const int wanted = (packs + of_thread - 1) / of_thread;
    return static_cast<unsigned>((wanted + kWarpSize - 1) / kWarpSize * kWarpSize);
  };
  if (width % kN != 0 || !is_aligned) {
    body.template operator()<1, 0>(kThreadsOfAnyWidth);
  } else if (packs <= kMostNormThreads) {
    body.template operator()<kN, 1>(threads(1));
  } else if (packs <= 2 * kMostNormThreads) {
    body.template operator()<kN, 2>(threads(2));
  } else {
    body.template operator()<kN, 0>(kThreadsOfAnyWidth);
  }
}

}  // namespace caravan::cuda

// The online softmax of attention (Milakov and Gimelshein 2018) in two parts, since results that are to be
// rescaled may still be on their way while scores are weighed. Accumulators are row blocks of 16 and column
// blocks of 8, laid out as the results of mma.m16n8k16 and of wgmma are.
#pragma once

#include "kernels/cuda/attention_tiles.h"

namespace caravan::cuda {

/// Of the lane's rows (16 · block + group, + 8): the largest score so far, unscaled, and its own part of the
/// sum of exp(scale · (score − maximum)).
template <int kRowBlocks>
struct OnlineSoftmax {
  float maximum[kRowBlocks][2];
  float sum[kRowBlocks][2];

  __device__ OnlineSoftmax() {
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
      maximum[r][0] = maximum[r][1] = minus_infinity();
      sum[r][0] = sum[r][1] = 0.0F;
    }
  }

  /// Turns scores into weights relative to the new maximum; what was weighed relative to the old one is to be
  /// multiplied by `correction`. `scale_log2` = scale · log2 e.
  template <int kColumnBlocks>
  __device__ void weigh(float (&scores)[kRowBlocks][kColumnBlocks][4], float (&correction)[kRowBlocks][2],
                        float scale_log2) {
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float largest = maximum[r][half];
#pragma unroll
        for (int c = 0; c < kColumnBlocks; ++c) {
          largest = fmaxf(largest, fmaxf(scores[r][c][2 * half], scores[r][c][2 * half + 1]));
        }
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));  // the four lanes of the row
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
        // Nothing seen yet: −inf − 0 where −inf − −inf would be NaN.
        const float base = largest == minus_infinity() ? 0.0F : largest * scale_log2;
        correction[r][half] = exp2_approx(fmaf(maximum[r][half], scale_log2, -base));
        maximum[r][half] = largest;
        float total = 0.0F;
#pragma unroll
        for (int c = 0; c < kColumnBlocks; ++c) {
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            float& score = scores[r][c][2 * half + side];
            score = exp2_approx(fmaf(score, scale_log2, -base));
            total += score;
          }
        }
        sum[r][half] = sum[r][half] * correction[r][half] + total;
      }
    }
  }

  __device__ float whole_sum(int r, int half) const {
    float whole = sum[r][half];
    whole += __shfl_xor_sync(kAllLanes, whole, 1);
    whole += __shfl_xor_sync(kAllLanes, whole, 2);
    return whole;
  }
};

/// result *= correction, row by row.
template <int kRowBlocks, int kWidth>
__device__ void rescale(float (&result)[kRowBlocks][kWidth][4], const float (&correction)[kRowBlocks][2]) {
#pragma unroll
  for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
    for (int c = 0; c < kWidth; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        result[r][c][i] *= correction[r][i / 2];
      }
    }
  }
}

}  // namespace caravan::cuda

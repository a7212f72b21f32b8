// The forward kernel, as a template of its tile sizes.
#pragma once

#include "kernels/cuda/attention_mask.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/online_softmax.h"

namespace caravan::cuda {

/// A warp has 32 queries, two blocks of 16: what it loads of K and V serves both, without which shared memory
/// would be slower than the tensor cores.
template <int kHeadDimension>
struct ForwardTiles : TileRules {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRowBlocks = 2;
  static constexpr int kRowsPerWarp = 16 * kRowBlocks;
  static constexpr int kQueries = kRowsPerWarp * kWarps;
  static constexpr int kKeys = 64;
  static constexpr int kSlots = 3;  // a tile of K or V each: one is used, two are on their way
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kSharedBytes = (kQueries + kSlots * kKeys) * kHeadDim * 2;
};

/// A block per kQueries queries of a head; the last queries first, since under a causal mask they have the
/// most keys.
template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerSm)
    attention_forward_tensor_core_kernel(AttentionProblem p, const BFloat16* q, const BFloat16* k,
                                         const BFloat16* v, BFloat16* o, float* lse) {
  SharedMemory smem;
  const Tile<C> queries{smem.take<BFloat16>(C::kQueries * C::kHeadDim)};
  using Ring = TileRing<C, C::kKeys * C::kHeadDim>;
  Ring ring(smem.take<BFloat16>(Ring::kElements));
  const int begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * C::kQueries;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / p.group_size();
  const int row = static_cast<int>(blockIdx.z);
  const int warp_row = static_cast<int>(threadIdx.x) / kWarpSize * C::kRowsPerWarp;
  const int q_pitch = p.n_heads * Tile<C>::kChunks;
  const int kv_pitch = p.n_kv_heads * Tile<C>::kChunks;
  const HeadRows<const BFloat16> keys{k + p.key_at(row, 0, kv_head), kv_pitch, p.key_len};
  const HeadRows<const BFloat16> values{v + p.key_at(row, 0, kv_head), kv_pitch, p.key_len};

  start_rows<C, C::kQueries>(queries, {q + p.query_at(row, 0, head), q_pitch, p.query_len}, begin);
  const KeyTiles tiles = key_tiles_of<C>(p, row, begin, warp_row);
  // Items: the keys of a tile, its values, the keys of the next; `item` counts from the keys of `tile`.
  const auto start = [&](BFloat16* slot, int tile, int item) {
    if (tile + item / 2 < tiles.block.end) {
      start_rows<C, C::kKeys>(Tile<C>{slot}, item % 2 == 0 ? keys : values, (tile + item / 2) * C::kKeys);
    }
  };
  const float scale_log2 = p.scale * kLog2E;
  OnlineSoftmax<C::kRowBlocks> softmax;
  float result[C::kRowBlocks][C::kHeadDim / 8][4] = {};
  ring.begin([&](BFloat16* slot, int item) { start(slot, tiles.block.begin, item); });
  for (int tile = tiles.block.begin; tile < tiles.block.end; ++tile) {
    const Tile<C> key_rows{ring.next([&](BFloat16* slot, int item) { start(slot, tile, item); })};
    float weights[C::kRowBlocks][C::kKeys / 8][4] = {};  // first scores
    if (tiles.is_seen(tile)) {
      add_row_products<C>(weights, queries, warp_row, key_rows);
      if (tiles.needs_mask(tile)) {
        hide_unseen(weights, p, row, begin + warp_row, tile * C::kKeys);
      }
      float correction[C::kRowBlocks][2];
      softmax.weigh(weights, correction, scale_log2);
      rescale(result, correction);
    }
    const LeftOperand left{weights};
    const Tile<C> value_rows{ring.next([&](BFloat16* slot, int item) { start(slot, tile, item + 1); })};
    if (tiles.is_seen(tile)) {
      add_weighted_rows<C>(result, left, value_rows);
    }
  }

  cp_async_wait<0>();  // where no tile was seen the queries may still be on their way
  __syncthreads();
  const LaneOf lane;
  float factors[C::kRowBlocks][2];
#pragma unroll
  for (int r = 0; r < C::kRowBlocks; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = softmax.whole_sum(r, half);
      factors[r][half] = sum > 0.0F ? 1.0F / sum : 0.0F;
      const int i = begin + warp_row + 16 * r + 8 * half + lane.group;
      if (lane.member == 0 && i < p.query_len) {  // −inf where nothing is seen
        lse[p.statistic_at(row, i, head)] = softmax.maximum[r][half] * p.scale + logf(sum);
      }
    }
  }
  store_rows<C>(result, factors, queries, warp_row, {o + p.query_at(row, 0, head), q_pitch, p.query_len},
                begin);
}

}  // namespace caravan::cuda

// What the Hopper attention kernels share (attention_forward.cu, attention_dq.cu, attention_dkdv.cu): the
// block's roles, which tiles are visited, fragments and results in tiles. They are a second implementation of
// attention.cu's launchers for bfloat16 heads of 64 and 128, for GPUs of compute capability 9.0
// (docs/notes/hopper-kernels.md).
//
// A block has three warpgroups. The first is the producer: one warp fetches tiles into a ring of stages with
// bulk tensor copies. The other two are consumers with 64 rows of the block's tile each: products from shared
// memory, softmax in registers, whose result is the next product's operand as it stands (Shah et al. 2024,
// FlashAttention-3).
#pragma once

#include "kernels/cuda/attention_mask.h"
#include "kernels/cuda/hopper/launchers.h"
#include "kernels/cuda/hopper/ops.h"
#include "kernels/cuda/tile_ops.h"

namespace caravan::cuda::hopper {

// ---- roles

inline constexpr int kConsumers = 2;
inline constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
inline constexpr int kWarpgroupRows = 64;
inline constexpr int kBlockRows = kConsumers * kWarpgroupRows;
// The block gets 168 registers a thread at launch; what the producer gives up the consumers share. More than
// 3 · 168 in sum would wait for ever.
inline constexpr int kProducerRegisters = 24;
inline constexpr int kConsumerRegisters = 240;
static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 3 * 168);
/// Arrivals that empty a stage: each warp of the consumers, when its products have read it.
inline constexpr unsigned kConsumerWarps = kConsumers * kWarpgroup / kWarpSize;

/// What the backward pass knows of a query: exp(s − lse) = exp2(s · log2 e − lse_log2).
struct RowStatistics {
  float lse_log2;
  float delta;
};

#if defined(CARAVAN_HOPPER_CODE)

__device__ inline int lane_of_warp() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}
/// 0 is the producer. The same in all lanes of a warp, and the compiler can see it.
__device__ inline int warpgroup_of_block() {
  return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}
/// Waits for the consumer warpgroup `consumer` alone.
__device__ inline void consumer_barrier(int consumer) {
  named_barrier(1 + consumer, kWarpgroup);
}
/// A consumer warp has read a stage: its products have been waited for.
__device__ inline void release(Barrier* empty) {
  if (lane_of_warp() == 0) {
    barrier_arrive(empty);
  }
}

/// Tile [rows, kHeadDim] of a head to `full`; one thread. `rows` as in the map.
template <int kHeadDim>
__device__ void load_tile(unsigned char* tile, const TensorMap& map, int rows, Barrier* full,
                          const BoxPlace& at) {
#pragma unroll
  for (int column = 0; column < kHeadDim; column += kPanelColumns) {
    tma_load(tile + column / kPanelColumns * panel_bytes(rows), map, full,
             {at.column + column, at.token, at.head, at.row});
  }
}

/// The 64 rows of a consumer's accumulator, times factor[0] (rows r) or factor[1] (rows r + 8), as bfloat16
/// through `tile` to their place. All threads of the warpgroup call it; returns when the bytes are written.
template <int kHeadDim>
__device__ void store_tile(unsigned char* tile, const float (&d)[kHeadDim / 8][4], const float (&factor)[2],
                           const TensorMap& map, int consumer, const BoxPlace& at) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  consumer_barrier(consumer);  // the other warps' products have read it
#pragma unroll
  for (int i = 0; i < kHeadDim / 8; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<std::uint32_t*>(tile + element_offset(kWarpgroupRows,
                                                              accumulator_row(thread, 2 * half),
                                                              accumulator_column(thread, i, 0))) =
          pack_bf16(d[i][2 * half] * factor[half], d[i][2 * half + 1] * factor[half]);
    }
  }
  fence_shared_writes();
  consumer_barrier(consumer);
  if (thread == 0) {
#pragma unroll
    for (int column = 0; column < kHeadDim; column += kPanelColumns) {
      tma_store(map, tile + column / kPanelColumns * panel_bytes(kWarpgroupRows),
                {at.column + column, at.token, at.head, at.row});
    }
    tma_store_wait();
  }
}

/// Columns 16j to 16j + 15 of an accumulator as the operand of a product.
template <int kBlocks>
__device__ void pack_fragment(std::uint32_t (&a)[4], const float (&d)[kBlocks][4], int j) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i] = pack_bf16(d[2 * j + i / 2][i % 2 * 2], d[2 * j + i / 2][i % 2 * 2 + 1]);
  }
}

/// Of a query that sees nothing or does not exist: lse_log2 = +inf, so that all its weights are 0.
__device__ inline RowStatistics row_statistics(const AttentionProblem& p, const float* lse,
                                               const float* delta, int row, int query, int head) {
  if (query >= p.query_len) {
    return {-minus_infinity(), 0.0F};
  }
  const std::int64_t at = p.statistic_at(row, query, head);
  return {lse[at] == minus_infinity() ? -minus_infinity() : lse[at] * kLog2E, delta[at]};
}

/// The tiles of kKeys keys that kBlockRows queries from `begin` on meet; the same in every lane of a warp.
template <int kKeys>
__device__ KeySteps steps_of_tile(const AttentionProblem& p, int row, int begin) {
  const TileVisibility queries = tile_visibility<kBlockRows>(p, row, begin);
  const KeyTiles tiles = key_tiles<kKeys>(p, row, queries.any, queries);
  return key_steps(tiles.warp.begin, tiles.warp.end, tiles.whole.begin, tiles.whole.end);
}

#endif  // CARAVAN_HOPPER_CODE

}  // namespace caravan::cuda::hopper

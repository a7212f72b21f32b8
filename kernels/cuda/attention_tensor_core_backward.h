// The backward kernels, as templates of their tile sizes: one prepares, one gives dq, one dk and dv. None
// adds into memory that another block adds into, so results have the same bits whatever the order of blocks.
#pragma once

#include "kernels/cuda/attention_mask.h"
#include "kernels/cuda/attention_tiles.h"

namespace caravan::cuda {

/// A block of the dq kernel has queries, keys come past: V of a tile, then its K.
template <int kHeadDimension>
struct QueryGradientTiles : TileRules {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRowBlocks = 2;
  static constexpr int kRowsPerWarp = 16 * kRowBlocks;
  static constexpr int kQueries = kRowsPerWarp * kWarps;
  static constexpr int kKeys = kHeadDim == 64 ? 64 : 32;
  static constexpr int kSlots = kHeadDim == 64 ? 3 : 2;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kSharedBytes = (2 * kQueries + kSlots * kKeys) * kHeadDim * 2;
};

/// lse · log2 e and delta = Σ_e do · o of a query and head. Where a query sees nothing or does not exist,
/// +inf and 0: exp2(score − inf) makes all its weights 0.
struct RowStatistics {
  float lse_log2;
  float delta;
};

/// A block of the dk and dv kernel has keys; Q and dO of a tile of queries come past, with their statistics.
template <int kHeadDimension>
struct KeyGradientTiles : TileRules {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kWarps = kHeadDim == 64 ? 4 : 8;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRowBlocks = kHeadDim == 64 ? 2 : 1;  // dk and dv fill the registers
  static constexpr int kRowsPerWarp = 16 * kRowBlocks;
  static constexpr int kKeys = kRowsPerWarp * kWarps;
  static constexpr int kQueries = kHeadDim == 64 ? 32 : 64;
  static constexpr int kSlots = 2;
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 2 : 1;
  static constexpr int kTileElements = kQueries * kHeadDim;
  static constexpr int kSlotElements =
      2 * kTileElements + kQueries * static_cast<int>(sizeof(RowStatistics) / sizeof(BFloat16));
  static constexpr int kSharedBytes = 2 * (2 * kKeys * kHeadDim + kSlots * kSlotElements);
};

/// What goes into dq, dk and dv besides what the prepare kernel leaves.
struct BackwardInputs {
  const BFloat16* q;
  const BFloat16* k;
  const BFloat16* v;
  const BFloat16* d_o;
};

/// What the prepare kernel leaves, with rows padded to whole tiles so that their parts are aligned.
struct BackwardScratch {
  RowStatistics* rows;    // [B, H, padded_len]
  Visible* visible;       // [B, padded_len]; beyond the last query: nothing
  TileVisibility* tiles;  // [B, padded_len / kQueries] of KeyGradientTiles
  int padded_len;         // query_len up to a multiple of 128

  __device__ const RowStatistics* rows_of(const AttentionProblem& p, int row, int head) const {
    return rows + (static_cast<std::int64_t>(row) * p.n_heads + head) * padded_len;
  }
};

/// How the scratch lies in a workspace, one part behind the other.
struct BackwardLayout {
  std::int64_t padded_len;
  std::int64_t rows_bytes;
  std::int64_t visible_bytes;
  std::int64_t tiles_bytes;

  explicit BackwardLayout(const AttentionShape& shape)
      : padded_len((shape.query_len + 127) / 128 * 128),
        rows_bytes(shape.batch * shape.n_heads * padded_len *
                   static_cast<std::int64_t>(sizeof(RowStatistics))),
        visible_bytes(shape.batch * padded_len * static_cast<std::int64_t>(sizeof(Visible))),
        // The smaller of the two tiles has more of them.
        tiles_bytes(shape.batch * padded_len / KeyGradientTiles<64>::kQueries *
                    static_cast<std::int64_t>(sizeof(TileVisibility))) {}
  std::int64_t bytes() const { return rows_bytes + visible_bytes + tiles_bytes; }
};

inline BackwardScratch backward_scratch(const AttentionShape& shape, const Workspace& workspace) {
  const BackwardLayout layout(shape);
  auto* bytes = static_cast<unsigned char*>(workspace.data);
  return {.rows = reinterpret_cast<RowStatistics*>(bytes),
          .visible = reinterpret_cast<Visible*>(bytes + layout.rows_bytes),
          .tiles = reinterpret_cast<TileVisibility*>(bytes + layout.rows_bytes + layout.visible_bytes),
          .padded_len = static_cast<int>(layout.padded_len)};
}

/// A block per kQueries queries of a head; head 0 also leaves what its queries see.
template <class C>
__global__ void __launch_bounds__(C::kThreads)
    attention_prepare_kernel(AttentionProblem p, const BFloat16* o, const BFloat16* d_o, const float* lse,
                             BackwardScratch scratch) {
  constexpr int kLanes = C::kHeadDim / 8;  // of a query, 8 elements each
  const int begin = static_cast<int>(blockIdx.x) * C::kQueries;
  const int head = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  RowStatistics* rows =
      scratch.rows + (static_cast<std::int64_t>(row) * p.n_heads + head) * scratch.padded_len;
  for (int i = begin + thread / kLanes; i < begin + C::kQueries; i += C::kThreads / kLanes) {
    const bool exists = i < p.query_len;
    float sum = 0.0F;
    if (exists) {
      const std::int64_t at = p.query_at(row, i, head) + thread % kLanes * 8;
      const auto left = load_pack<8>(o + at);
      const auto right = load_pack<8>(d_o + at);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        sum += load_float(left[e]) * load_float(right[e]);
      }
    }
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, lanes);
    }
    if (thread % kLanes == 0) {
      const float own = exists ? lse[p.statistic_at(row, i, head)] : minus_infinity();
      rows[i] =
          own == minus_infinity() ? RowStatistics{-minus_infinity(), 0.0F} : RowStatistics{own * kLog2E, sum};
    }
  }
  if (head == 0 && thread < kWarpSize) {
    for (int i = begin + thread; i < begin + C::kQueries; i += kWarpSize) {
      scratch.visible[static_cast<std::int64_t>(row) * scratch.padded_len + i] = visible_to(p, row, i);
    }
    const TileVisibility tile = tile_visibility<C::kQueries>(p, row, begin);
    if (thread == 0) {
      scratch.tiles[static_cast<std::int64_t>(row) * gridDim.x + blockIdx.x] = tile;
    }
  }
}

/// dq = scale · ds k with p = exp(s − lse), ds = p · (do vᵀ − delta). Like the forward kernel.
template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerSm)
    attention_dq_tensor_core_kernel(AttentionProblem p, BackwardInputs in, BackwardScratch scratch,
                                    BFloat16* dq) {
  SharedMemory smem;
  const Tile<C> queries{smem.take<BFloat16>(C::kQueries * C::kHeadDim)};
  const Tile<C> gradients{smem.take<BFloat16>(C::kQueries * C::kHeadDim)};
  using Ring = TileRing<C, C::kKeys * C::kHeadDim>;
  Ring ring(smem.take<BFloat16>(Ring::kElements));
  const int begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * C::kQueries;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / p.group_size();
  const int row = static_cast<int>(blockIdx.z);
  const int warp_row = static_cast<int>(threadIdx.x) / kWarpSize * C::kRowsPerWarp;
  const int q_pitch = p.n_heads * Tile<C>::kChunks;
  const int kv_pitch = p.n_kv_heads * Tile<C>::kChunks;
  const HeadRows<const BFloat16> keys{in.k + p.key_at(row, 0, kv_head), kv_pitch, p.key_len};
  const HeadRows<const BFloat16> values{in.v + p.key_at(row, 0, kv_head), kv_pitch, p.key_len};
  const std::int64_t head_at = p.query_at(row, 0, head);

  start_rows<C, C::kQueries>(queries, {in.q + head_at, q_pitch, p.query_len}, begin);
  start_rows<C, C::kQueries>(gradients, {in.d_o + head_at, q_pitch, p.query_len}, begin);
  RowStatistics statistics[C::kRowBlocks][2];
  const RowStatistics* of_lane = scratch.rows_of(p, row, head) + begin + warp_row + LaneOf().group;
#pragma unroll
  for (int r = 0; r < C::kRowBlocks; ++r) {
    statistics[r][0] = of_lane[16 * r];
    statistics[r][1] = of_lane[16 * r + 8];
  }
  const KeyTiles tiles = key_tiles_of<C>(p, row, begin, warp_row);
  // Items: the values of a tile, its keys, the values of the next; `item` counts from the values of `tile`.
  const auto start = [&](BFloat16* slot, int tile, int item) {
    if (tile + item / 2 < tiles.block.end) {
      start_rows<C, C::kKeys>(Tile<C>{slot}, item % 2 == 0 ? values : keys, (tile + item / 2) * C::kKeys);
    }
  };
  const float scale_log2 = p.scale * kLog2E;
  float result[C::kRowBlocks][C::kHeadDim / 8][4] = {};
  ring.begin([&](BFloat16* slot, int item) { start(slot, tiles.block.begin, item); });
  for (int tile = tiles.block.begin; tile < tiles.block.end; ++tile) {
    float ds[C::kRowBlocks][C::kKeys / 8][4] = {};  // first dp
    const Tile<C> value_rows{ring.next([&](BFloat16* slot, int item) { start(slot, tile, item); })};
    if (tiles.is_seen(tile)) {
      add_row_products<C>(ds, gradients, warp_row, value_rows);
    }
    const Tile<C> key_rows{ring.next([&](BFloat16* slot, int item) { start(slot, tile, item + 1); })};
    if (!tiles.is_seen(tile)) {
      continue;  // the whole warp
    }
    float scores[C::kRowBlocks][C::kKeys / 8][4] = {};
    add_row_products<C>(scores, queries, warp_row, key_rows);
    if (tiles.needs_mask(tile)) {
      hide_unseen(scores, p, row, begin + warp_row, tile * C::kKeys);
    }
#pragma unroll
    for (int r = 0; r < C::kRowBlocks; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const RowStatistics own = statistics[r][half];
#pragma unroll
        for (int c = 0; c < C::kKeys / 8; ++c) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            ds[r][c][e] =
                exp2_approx(fmaf(scores[r][c][e], scale_log2, -own.lse_log2)) * (ds[r][c][e] - own.delta);
          }
        }
      }
    }
    add_weighted_rows<C>(result, LeftOperand{ds}, key_rows);
  }

  cp_async_wait<0>();  // where no tile was seen the queries may still be on their way
  __syncthreads();
  float factors[C::kRowBlocks][2];
#pragma unroll
  for (int r = 0; r < C::kRowBlocks; ++r) {
    factors[r][0] = factors[r][1] = p.scale;
  }
  store_rows<C>(result, factors, queries, warp_row, {dq + head_at, q_pitch, p.query_len}, begin);
}

}  // namespace caravan::cuda

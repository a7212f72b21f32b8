// The kernel of dk and dv. It works on the transposes of scores and weights: a warp's rows are keys, so that
// its weights are the left operands of both products and stay in registers.
#pragma once

#include "kernels/cuda/attention_tensor_core_backward.h"

namespace caravan::cuda {

/// A tile of queries of one head that comes past a block of keys.
struct QueryTile {
  int head;
  int tile;
  bool is_seen;     // by this warp
  bool needs_mask;  // in this warp
};

/// The tiles that see one of the block's keys, of all heads of the group in head order. A warp looks at 32
/// tiles at once; every warp goes the same way.
template <class C>
class QueryTileWalk {
 public:
  /// The first and last index of the block's keys, and of the warp's.
  __device__ QueryTileWalk(const AttentionProblem& p, const BackwardScratch& scratch, int row, int kv_head,
                           Visible block_keys, Visible warp_keys)
      : tiles_(scratch.tiles + static_cast<std::int64_t>(row) * (scratch.padded_len / C::kQueries)),
        n_tiles_(scratch.padded_len / C::kQueries),
        block_keys_(block_keys),
        warp_keys_(warp_keys),
        head_(kv_head * p.group_size()),
        end_head_(head_ + p.group_size()) {
    look();
  }

  /// The tile the walk stands at, after the first advance and before the end.
  __device__ const QueryTile& tile() const { return tile_; }
  __device__ bool is_at_end() const { return is_at_end_; }

  __device__ void advance() {
    while (to_come_ == 0U) {
      window_ += kWarpSize;
      if (window_ >= n_tiles_) {
        window_ = 0;
        ++head_;
      }
      if (head_ >= end_head_) {
        is_at_end_ = true;
        return;
      }
      look();
    }
    const int place = __ffs(static_cast<int>(to_come_)) - 1;
    const unsigned bit = to_come_ & -to_come_;
    to_come_ ^= bit;
    tile_ = {head_, window_ + place, (seen_ & bit) != 0U, (whole_ & bit) == 0U};
  }

 private:
  __device__ void look() {
    const int tile = window_ + static_cast<int>(threadIdx.x) % kWarpSize;
    const TileVisibility one =
        tile < n_tiles_ ? tiles_[tile] : TileVisibility{{INT32_MAX, INT32_MIN}, {INT32_MAX, INT32_MIN}};
    to_come_ = __ballot_sync(kAllLanes, one.sees(block_keys_) ? 1 : 0);
    seen_ = __ballot_sync(kAllLanes, one.sees(warp_keys_) ? 1 : 0);
    whole_ = __ballot_sync(kAllLanes, one.sees_whole(warp_keys_) ? 1 : 0);
  }

  const TileVisibility* tiles_;
  int n_tiles_;
  Visible block_keys_;
  Visible warp_keys_;
  int head_;
  int end_head_;
  int window_ = 0;        // the first of the 32 tiles looked at; a bit for each:
  unsigned to_come_ = 0;  // sees a key of the block, and has not been given out
  unsigned seen_ = 0;     // sees a key of the warp
  unsigned whole_ = 0;    // every query sees every key of the warp
  QueryTile tile_{};
  bool is_at_end_ = false;
};

/// hide_unseen of the transpose: rows are keys from `key` on, columns queries whose masks are at `visible`.
template <int kRowBlocks, int kColumnBlocks>
__device__ void hide_unseen_transposed(float (&scores)[kRowBlocks][kColumnBlocks][4],
                                       const AttentionProblem& p, int row, int key, const Visible* visible) {
  const LaneOf lane;
  std::int32_t index[kRowBlocks][2];
#pragma unroll
  for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int j = key + 16 * r + 8 * half + lane.group;  // beyond the last key: never stored
      index[r][half] = p.key_index[static_cast<std::int64_t>(row) * p.key_len + (j < p.key_len ? j : 0)];
    }
  }
#pragma unroll
  for (int c = 0; c < kColumnBlocks; ++c) {
    const auto of_pair = load_pack<2>(visible + 8 * c + 2 * lane.member);
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (!of_pair[e % 2].sees(index[r][e / 2])) {
          scores[r][c][e] = minus_infinity();
        }
      }
    }
  }
}

/// Transposed scores become weights p = exp(scale · s − lse); `statistics` are those of the columns.
template <int kRowBlocks, int kColumnBlocks>
__device__ void to_weights(float (&scores)[kRowBlocks][kColumnBlocks][4], const RowStatistics* statistics,
                           float scale_log2) {
  const LaneOf lane;
#pragma unroll
  for (int c = 0; c < kColumnBlocks; ++c) {
    const auto of_pair = load_pack<2>(statistics + 8 * c + 2 * lane.member);
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[r][c][e] = exp2_approx(fmaf(scores[r][c][e], scale_log2, -of_pair[e % 2].lse_log2));
      }
    }
  }
}

/// Transposed dp become ds = p · (dp − delta).
template <int kRowBlocks, int kColumnBlocks>
__device__ void to_score_gradients(float (&dp)[kRowBlocks][kColumnBlocks][4],
                                   const float (&weights)[kRowBlocks][kColumnBlocks][4],
                                   const RowStatistics* statistics) {
  const LaneOf lane;
#pragma unroll
  for (int c = 0; c < kColumnBlocks; ++c) {
    const auto of_pair = load_pack<2>(statistics + 8 * c + 2 * lane.member);
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        dp[r][c][e] = weights[r][c][e] * (dp[r][c][e] - of_pair[e % 2].delta);
      }
    }
  }
}

/// dv = pᵀ do,  dk = scale · dsᵀ q. A block per kKeys keys of a kv head.
template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerSm)
    attention_dkdv_tensor_core_kernel(AttentionProblem p, BackwardInputs in, BackwardScratch scratch,
                                      BFloat16* dk, BFloat16* dv) {
  static_assert(C::kSlots == 2, "the walk is one tile ahead");
  SharedMemory smem;
  const Tile<C> keys{smem.take<BFloat16>(C::kKeys * C::kHeadDim)};
  const Tile<C> values{smem.take<BFloat16>(C::kKeys * C::kHeadDim)};
  using Ring = TileRing<C, C::kSlotElements>;
  Ring ring(smem.take<BFloat16>(Ring::kElements));
  const int begin = static_cast<int>(blockIdx.x) * C::kKeys;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const int warp_row = static_cast<int>(threadIdx.x) / kWarpSize * C::kRowsPerWarp;
  const int q_pitch = p.n_heads * Tile<C>::kChunks;
  const int kv_pitch = p.n_kv_heads * Tile<C>::kChunks;
  const std::int64_t head_at = p.key_at(row, 0, kv_head);
  const std::int32_t* index = p.key_index + static_cast<std::int64_t>(row) * p.key_len;
  const auto index_range = [&](int from, int count) {  // none beyond the last key: first > last
    const int end = from + count < p.key_len ? from + count : p.key_len;
    return from < end ? Visible{index[from], index[end - 1]} : Visible{INT32_MAX, INT32_MIN};
  };

  start_rows<C, C::kKeys>(keys, {in.k + head_at, kv_pitch, p.key_len}, begin);
  start_rows<C, C::kKeys>(values, {in.v + head_at, kv_pitch, p.key_len}, begin);
  QueryTileWalk<C> walk(p, scratch, row, kv_head, index_range(begin, C::kKeys),
                        index_range(begin + warp_row, C::kRowsPerWarp));
  const auto start = [&](BFloat16* slot, int /*item*/) {
    walk.advance();
    if (walk.is_at_end()) {
      return;
    }
    const QueryTile upcoming = walk.tile();
    const int first = upcoming.tile * C::kQueries;
    const std::int64_t at = p.query_at(row, 0, upcoming.head);
    start_rows<C, C::kQueries>(Tile<C>{slot}, {in.q + at, q_pitch, p.query_len}, first);
    start_rows<C, C::kQueries>(Tile<C>{slot + C::kTileElements}, {in.d_o + at, q_pitch, p.query_len}, first);
    const int pair = 2 * static_cast<int>(threadIdx.x);  // statistics of two queries are 16 bytes
    if (pair < C::kQueries) {
      cp_async_16(reinterpret_cast<RowStatistics*>(slot + 2 * C::kTileElements) + pair,
                  scratch.rows_of(p, row, upcoming.head) + first + pair, true);
    }
  };
  const float scale_log2 = p.scale * kLog2E;
  float dk_sums[C::kRowBlocks][C::kHeadDim / 8][4] = {};
  float dv_sums[C::kRowBlocks][C::kHeadDim / 8][4] = {};
  ring.begin(start);
  while (!walk.is_at_end()) {
    const QueryTile queries = walk.tile();
    BFloat16* slot = ring.next(start);
    if (!queries.is_seen) {
      continue;  // the whole warp
    }
    const Tile<C> query_rows{slot};
    const Tile<C> gradient_rows{slot + C::kTileElements};
    const auto* statistics = reinterpret_cast<const RowStatistics*>(slot + 2 * C::kTileElements);
    float weights[C::kRowBlocks][C::kQueries / 8][4] = {};  // first scores
    add_row_products<C>(weights, keys, warp_row, query_rows);
    if (queries.needs_mask) {
      hide_unseen_transposed(
          weights, p, row, begin + warp_row,
          scratch.visible + static_cast<std::int64_t>(row) * scratch.padded_len + queries.tile * C::kQueries);
    }
    to_weights(weights, statistics, scale_log2);
    add_weighted_rows<C>(dv_sums, LeftOperand{weights}, gradient_rows);
    float ds[C::kRowBlocks][C::kQueries / 8][4] = {};  // first dp
    add_row_products<C>(ds, values, warp_row, gradient_rows);
    to_score_gradients(ds, weights, statistics);
    add_weighted_rows<C>(dk_sums, LeftOperand{ds}, query_rows);
  }

  cp_async_wait<0>();  // where no query was seen the keys may still be on their way
  __syncthreads();
  float factors[C::kRowBlocks][2];
#pragma unroll
  for (int r = 0; r < C::kRowBlocks; ++r) {
    factors[r][0] = factors[r][1] = p.scale;
  }
  store_rows<C>(dk_sums, factors, keys, warp_row, {dk + head_at, kv_pitch, p.key_len}, begin);
#pragma unroll
  for (int r = 0; r < C::kRowBlocks; ++r) {
    factors[r][0] = factors[r][1] = 1.0F;
  }
  store_rows<C>(dv_sums, factors, values, warp_row, {dv + head_at, kv_pitch, p.key_len}, begin);
}

}  // namespace caravan::cuda

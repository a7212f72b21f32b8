// Which tiles of keys a block and a warp of queries see, which in part and which in full, and the mask inside
// a tile seen in part. All of it follows from key_index not decreasing in a row
// (docs/notes/cuda-attention.md).
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tiles.h"

namespace caravan::cuda {

/// Of the queries of a tile that exist: no query sees a key outside `any`; every query sees every key inside
/// `all`.
struct TileVisibility {
  Visible any;
  Visible all;
  /// Of tiles with keys [keys.first, keys.last].
  __device__ bool sees(Visible keys) const { return any.first <= keys.last && keys.first <= any.last; }
  __device__ bool sees_whole(Visible keys) const { return all.first <= keys.first && keys.last <= all.last; }
};

/// The same in every lane of a warp.
template <int kQueries>
__device__ TileVisibility tile_visibility(const AttentionProblem& p, int row, int begin) {
  TileVisibility tile{{INT32_MAX, INT32_MIN}, {INT32_MIN, INT32_MAX}};
  for (int i = static_cast<int>(threadIdx.x) % kWarpSize; i < kQueries; i += kWarpSize) {
    if (begin + i < p.query_len) {
      const Visible one = visible_to(p, row, begin + i);
      tile.any.first = one.first < tile.any.first ? one.first : tile.any.first;
      tile.any.last = one.last > tile.any.last ? one.last : tile.any.last;
      tile.all.first = one.first > tile.all.first ? one.first : tile.all.first;
      tile.all.last = one.last < tile.all.last ? one.last : tile.all.last;
    }
  }
  // −1 − x turns a minimum into a maximum: −x would overflow.
  return {{-1 - warp_max(-1 - tile.any.first), warp_max(tile.any.last)},
          {warp_max(tile.all.first), -1 - warp_max(-1 - tile.all.last)}};
}

/// Tiles of keys for a block of queries and one warp of it.
struct KeyTiles {
  TileRange block;  // a query of the block sees a key of each, perhaps; none sees one outside
  TileRange warp;   // the same of the warp, within those of the block
  TileRange whole;  // full tiles of which every query of the warp sees every key
  __device__ bool is_seen(int tile) const { return warp.begin <= tile && tile < warp.end; }
  __device__ bool needs_mask(int tile) const { return tile < whole.begin || tile >= whole.end; }
};

/// By counting, 32 tiles at a time: the first and last index of a tile do not decrease from tile to tile, so
/// the tiles that fail a condition stand together at one end. A binary search would have fewer reads, but
/// each would wait for the one before it.
template <int kKeys>
__device__ KeyTiles key_tiles(const AttentionProblem& p, int row, Visible block, const TileVisibility& warp) {
  const std::int32_t* index = p.key_index + static_cast<std::int64_t>(row) * p.key_len;
  const int tiles = (p.key_len + kKeys - 1) / kKeys;
  KeyTiles counts{};
  for (int tile = static_cast<int>(threadIdx.x) % kWarpSize; tile < tiles; tile += kWarpSize) {
    const int end = (tile + 1) * kKeys;
    const std::int32_t first = index[tile * kKeys];
    const std::int32_t last = index[(end < p.key_len ? end : p.key_len) - 1];
    counts.block.begin += last < block.first ? 1 : 0;
    counts.block.end += first <= block.last ? 1 : 0;
    counts.warp.begin += last < warp.any.first ? 1 : 0;
    counts.warp.end += first <= warp.any.last ? 1 : 0;
    counts.whole.begin += first < warp.all.first ? 1 : 0;
    counts.whole.end += last <= warp.all.last && end <= p.key_len ? 1 : 0;
  }
  return {{warp_sum(counts.block.begin), warp_sum(counts.block.end)},
          {warp_sum(counts.warp.begin), warp_sum(counts.warp.end)},
          {warp_sum(counts.whole.begin), warp_sum(counts.whole.end)}};
}

/// What a warp with queries [begin + warp_row, + kRowsPerWarp) of a block with [begin, + kQueries) needs.
template <class C>
__device__ KeyTiles key_tiles_of(const AttentionProblem& p, int row, int begin, int warp_row) {
  return key_tiles<C::kKeys>(p, row, visible_to_tile<C::kQueries>(p, row, begin),
                             tile_visibility<C::kRowsPerWarp>(p, row, begin + warp_row));
}

/// Scores of queries `query`, ... (rows) and keys `key`, ... (columns) that the mask hides become −inf, and
/// those of keys beyond the last.
template <int kRowBlocks, int kColumnBlocks>
__device__ void hide_unseen(float (&scores)[kRowBlocks][kColumnBlocks][4], const AttentionProblem& p, int row,
                            int query, int key) {
  const LaneOf lane;
  const int first_row = query + lane.group;
  const std::int64_t at = static_cast<std::int64_t>(row) * p.query_len + first_row;
  const std::int32_t* last = p.query_index + at;
  const std::int32_t* first = p.document_start + at;
  Visible visible[kRowBlocks][2];
#pragma unroll
  for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = 16 * r + 8 * half;
      const bool exists = first_row + i < p.query_len;
      visible[r][half] = {exists ? first[i] : INT32_MAX, exists ? last[i] : INT32_MIN};
    }
  }
  const int first_key = key + 2 * lane.member;
  const std::int32_t* index = p.key_index + static_cast<std::int64_t>(row) * p.key_len + first_key;
#pragma unroll
  for (int c = 0; c < kColumnBlocks; ++c) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int j = 8 * c + side;
      const bool exists = first_key + j < p.key_len;
      const std::int32_t one = exists ? index[j] : 0;
#pragma unroll
      for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (!exists || !visible[r][half].sees(one)) {
            scores[r][c][2 * half + side] = minus_infinity();
          }
        }
      }
    }
  }
}

}  // namespace caravan::cuda

// Keys and values that come past a block of queries, tile by tile: what the forward pass and dq have in
// common.
#pragma once

#include "kernels/cuda/hopper/attention.h"

namespace caravan::cuda::hopper {

/// kStages buffers of 128 keys and as many of their values, each with a barrier that says it is full (one
/// arrival and its bytes) and one that says it is empty (every consumer warp).
template <int kHeadDim, int kStages>
struct KeyRing {
  using Place = RingPlace<kStages>;
  static constexpr int kKeys = 128;
  static constexpr int kStageBytes = tile_bytes(kKeys, kHeadDim);
  static constexpr int kTileBytes = 2 * kStages * kStageBytes;
  static constexpr int kBarriers = 4 * kStages;

  unsigned char* keys;
  unsigned char* values;
  Barrier* full_keys;  // [kStages], as are the following
  Barrier* full_values;
  Barrier* empty_keys;
  Barrier* empty_values;

#if defined(CARAVAN_HOPPER_CODE)
  /// In kTileBytes of `tiles` (aligned to kTileAlignment) and kBarriers of `barriers`.
  __device__ KeyRing(unsigned char* tiles, Barrier* barriers)
      : keys(tiles),
        values(tiles + kStages * kStageBytes),
        full_keys(barriers),
        full_values(barriers + kStages),
        empty_keys(barriers + 2 * kStages),
        empty_values(barriers + 3 * kStages) {}

  /// One thread, before fence_barrier_init.
  __device__ void init() const {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(full_keys + stage, 1);
      barrier_init(full_values + stage, 1);
      barrier_init(empty_keys + stage, kConsumerWarps);
      barrier_init(empty_values + stage, kConsumerWarps);
    }
  }

  /// One thread: the tiles of every step.
  __device__ void produce(const TensorMap& k, const TensorMap& v, const KeySteps& steps, int kv_head,
                          int row) const {
    Place place;
    for (int step = 0; step < steps.count(); ++step) {
      const int key = steps.tile(step) * kKeys;
      const auto fetch = [&](unsigned char* stages, Barrier* empty, Barrier* full, const TensorMap& map) {
        barrier_wait(empty + place.stage, place.phase ^ 1U);
        barrier_expect(full + place.stage, kStageBytes);
        load_tile<kHeadDim>(stages + place.stage * kStageBytes, map, kKeys, full + place.stage,
                            {0, key, kv_head, row});
        barrier_arrive(full + place.stage);
      };
      fetch(keys, empty_keys, full_keys, k);
      fetch(values, empty_values, full_values, v);
      place.advance();
    }
  }
#endif
};

/// 128 queries of a head; the last queries first, since under a causal mask they have the most keys.
struct QueryBlock {
  int begin;
  int head;
  int kv_head;
  int row;

#if defined(CARAVAN_HOPPER_CODE)
  __device__ explicit QueryBlock(const AttentionProblem& p)
      : begin(static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockRows),
        head(static_cast<int>(blockIdx.y)),
        kv_head(head / p.group_size()),
        row(static_cast<int>(blockIdx.z)) {}
#endif
};

inline dim3 query_blocks(const AttentionShape& s) {
  return {static_cast<unsigned>((s.query_len + kBlockRows - 1) / kBlockRows),
          static_cast<unsigned>(s.n_heads), static_cast<unsigned>(s.batch)};
}

}  // namespace caravan::cuda::hopper

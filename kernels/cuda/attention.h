// What the attention kernels share: the problem as raw pointers, and which keys a tile of queries can see.
#pragma once

#include <algorithm>
#include <cstdint>

#include "caravan/backend/op_args.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {

/// Sizes and mask of one launch; block z is the batch row.
struct AttentionProblem {
  int query_len, key_len, n_heads, n_kv_heads, head_dim;
  std::int64_t query_tokens;  // from row to row of lse [H, B·Sq]
  float scale;
  const std::int32_t* query_index;     // [B·Sq]
  const std::int32_t* key_index;       // [B·Sk]
  const std::int32_t* document_start;  // [B·Sq]

  __device__ int group_size() const { return n_heads / n_kv_heads; }
  /// First element of a head of query `i` (of key `j`) of batch row `row`.
  __device__ std::int64_t query_at(int row, int i, int head) const {
    return ((static_cast<std::int64_t>(row) * query_len + i) * n_heads + head) * head_dim;
  }
  __device__ std::int64_t key_at(int row, int j, int kv_head) const {
    return ((static_cast<std::int64_t>(row) * key_len + j) * n_kv_heads + kv_head) * head_dim;
  }
  __device__ std::int64_t statistic_at(int row, int i, int head) const {
    return static_cast<std::int64_t>(head) * query_tokens + static_cast<std::int64_t>(row) * query_len + i;
  }
};

inline AttentionProblem attention_problem(const AttentionShape& shape, const AttentionMask& mask,
                                          const TensorView& lse) {
  return {.query_len = static_cast<int>(shape.query_len),
          .key_len = static_cast<int>(shape.key_len),
          .n_heads = static_cast<int>(shape.n_heads),
          .n_kv_heads = static_cast<int>(shape.n_kv_heads),
          .head_dim = static_cast<int>(shape.head_dim),
          .query_tokens = lse.stride(0),
          .scale = static_cast<float>(shape.scale),
          .query_index = mask.query_index.data<std::int32_t>(),
          .key_index = mask.key_index.data<std::int32_t>(),
          .document_start = mask.document_start.data<std::int32_t>()};
}

/// Batch rows [begin, end): views into the whole; lse [H, B·Sq] keeps the distance from row to row.
template <class Args>
Args part_of(const Args& whole, std::int64_t begin, std::int64_t end) {
  Args part = whole;
  const auto cut = [&](TensorView& x, std::int64_t length, int dim = 0) {
    x = x.slice(dim, begin * length, end * length);
  };
  const std::int64_t query_len = whole.shape.query_len;
  const std::int64_t key_len = whole.shape.key_len;
  part.shape.batch = end - begin;
  cut(part.mask.query_index, query_len);
  cut(part.mask.key_index, key_len);
  cut(part.mask.document_start, query_len);
  cut(part.q, query_len);
  cut(part.k, key_len);
  cut(part.v, key_len);
  cut(part.o, query_len);
  cut(part.lse, query_len, 1);
  if constexpr (std::is_same_v<Args, AttentionBackwardArgs>) {
    cut(part.d_o, query_len);
    cut(part.dq, query_len);
    cut(part.dk, key_len);
    cut(part.dv, key_len);
  }
  return part;
}

/// Calls launch(part, its first token in delta) for as many batch rows at a time as a grid takes in z.
template <class Args, class Launch>
void for_each_part(const Args& args, const Launch& launch) {
  const std::int64_t most = most_blocks_yz();
  for (std::int64_t row = 0; row < args.shape.batch; row += most) {
    launch(part_of(args, row, std::min(row + most, args.shape.batch)), row * args.shape.query_len);
  }
}

__device__ inline float minus_infinity() {
  return __uint_as_float(0xff800000U);
}

/// What a query sees: keys whose index is in [first, last]; nothing when first > last.
struct Visible {
  std::int32_t first;
  std::int32_t last;
  __device__ bool sees(std::int32_t key) const { return first <= key && key <= last; }
};

/// Of query i of a batch row; of a query beyond the end: nothing.
__device__ inline Visible visible_to(const AttentionProblem& p, int row, int i) {
  if (i >= p.query_len) {
    return {INT32_MAX, INT32_MIN};
  }
  const std::int64_t at = static_cast<std::int64_t>(row) * p.query_len + i;
  return {p.document_start[at], p.query_index[at]};
}

__device__ inline std::int32_t warp_max(std::int32_t value) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    const std::int32_t other = __shfl_xor_sync(kAllLanes, value, lanes);
    value = other > value ? other : value;
  }
  return value;
}

/// The union of what kQueries queries from `begin` on see, the same in every lane of a warp.
template <int kQueries>
__device__ Visible visible_to_tile(const AttentionProblem& p, int row, int begin) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  Visible all{INT32_MAX, INT32_MIN};
  for (int i = lane; i < kQueries; i += kWarpSize) {
    const Visible one = visible_to(p, row, begin + i);
    all.first = one.first < all.first ? one.first : all.first;
    all.last = one.last > all.last ? one.last : all.last;
  }
  return {-1 - warp_max(-1 - all.first), warp_max(all.last)};  // −1 − x: −x would overflow
}

/// Tiles [begin, end) of kKeys keys that hold a key of `wanted`: one range, since key_index does not
/// decrease.
struct TileRange {
  int begin;
  int end;
};

template <int kKeys>
__device__ TileRange tiles_seen(const AttentionProblem& p, int row, Visible wanted) {
  const std::int32_t* index = p.key_index + static_cast<std::int64_t>(row) * p.key_len;
  const int tiles = (p.key_len + kKeys - 1) / kKeys;
  const auto first_where = [&](auto&& is_true) {
    int low = 0;
    int high = tiles;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (is_true(middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  };
  const int begin = first_where([&](int tile) {
    const int last = (tile + 1) * kKeys < p.key_len ? (tile + 1) * kKeys - 1 : p.key_len - 1;
    return index[last] >= wanted.first;
  });
  const int end = first_where([&](int tile) { return index[tile * kKeys] > wanted.last; });
  return {begin, end};
}

/// delta [H, B·Sq] = Σ_e do · o, the first step of every backward pass.
void attention_delta(const AttentionBackwardArgs& args, float* delta, StreamHandle stream);

}  // namespace caravan::cuda

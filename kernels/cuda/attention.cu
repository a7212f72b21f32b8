// Attention without tensor cores (Dao et al. 2022, algorithms 2 and 4): all storage types, any head_dim up
// to 256 and any alignment; and the launchers, which hand over to attention_tensor_core.h what it can do. The
// derivation is docs/derivations/attention.md. A lane is a key (or, for dk and
// dv, a query) when scores are computed, and columns of the head when vectors are added up.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/attention_tensor_core.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/hopper/launchers.h"

namespace caravan::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kOwn = 4;                // vectors a warp accumulates
constexpr int kOwned = kOwn * kWarps;  // of a block
constexpr int kTile = kWarpSize;       // vectors that come past, one a lane

/// Rows of a head as float in shared memory, `pitch` floats apart; zeros beyond the last row.
template <class T, class RowAt>
__device__ void load_rows(float* to, int pitch, const T* from, int rows, int head_dim, const RowAt& row_at) {
  for (int i = static_cast<int>(threadIdx.x); i < rows * head_dim; i += kThreads) {
    const std::int64_t at = row_at(i / head_dim);
    to[i / head_dim * pitch + i % head_dim] = at < 0 ? 0.0F : load_float(from[at + i % head_dim]);
  }
}

__device__ float dot(const float* a, const float* b, int head_dim) {
  float sum = 0.0F;
  for (int e = 0; e < head_dim; ++e) {
    sum += a[e] * b[e];
  }
  return sum;
}

/// A vector of a head over the lanes of a warp: lane l has columns l, l + 32, ...
template <int kColumns>
struct LaneColumns {
  float values[kColumns] = {};

  /// += Σ_j factor(of lane j) · rows[j]
  __device__ void add_rows(float factor, const float* rows, int pitch, int head_dim) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll 4  // all 32 make ptxas ten times slower
    for (int j = 0; j < kTile; ++j) {
      const float of_row = __shfl_sync(kAllLanes, factor, j);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = lane + c * kWarpSize;
        if (column < head_dim) {
          values[c] += of_row * rows[j * pitch + column];
        }
      }
    }
  }
  __device__ void scale(float factor) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      values[c] *= factor;
    }
  }
  template <class T>
  __device__ void store(T* to, int head_dim) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int column = lane + c * kWarpSize;
      if (column < head_dim) {
        to[column] = store_float<T>(values[c]);
      }
    }
  }
};

std::size_t shared_bytes(std::int64_t head_dim) {
  const auto row = static_cast<std::size_t>(head_dim);
  return 2 * (kOwned * row + kTile * (row + 1)) * sizeof(float);
}

// ---- forward, and dq: a block owns queries, keys come past

template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    attention_forward_kernel(AttentionProblem p, const T* q, const T* k, const T* v, T* o, float* lse) {
  SharedMemory smem;
  const int pitch = p.head_dim + 1;  // lanes read a column of rows: no two in one bank
  auto* queries = smem.take<float>(kOwned * p.head_dim);
  auto* keys = smem.take<float>(kTile * pitch);
  auto* values = smem.take<float>(kTile * pitch);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int begin = static_cast<int>(blockIdx.x) * kOwned;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / p.group_size();
  const int row = static_cast<int>(blockIdx.z);

  load_rows(queries, p.head_dim, q, kOwned, p.head_dim, [&](int i) {
    return begin + i < p.query_len ? p.query_at(row, begin + i, head) : std::int64_t{-1};
  });
  float maximum[kOwn];
  float sum[kOwn] = {};
  LaneColumns<kColumns> result[kOwn];
  for (float& m : maximum) {
    m = minus_infinity();
  }
  const TileRange tiles = tiles_seen<kTile>(p, row, visible_to_tile<kOwned>(p, row, begin));
  for (int tile = tiles.begin; tile < tiles.end; ++tile) {
    const int key = tile * kTile + lane;
    const auto key_row = [&](int j) {
      return tile * kTile + j < p.key_len ? p.key_at(row, tile * kTile + j, kv_head) : std::int64_t{-1};
    };
    __syncthreads();  // the last tile has been read
    load_rows(keys, pitch, k, kTile, p.head_dim, key_row);
    load_rows(values, pitch, v, kTile, p.head_dim, key_row);
    __syncthreads();
    const std::int32_t index =
        key < p.key_len ? p.key_index[static_cast<std::int64_t>(row) * p.key_len + key] : 0;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int i = warp * kOwn + own;
      const bool sees = key < p.key_len && visible_to(p, row, begin + i).sees(index);
      const float score =
          sees ? p.scale * dot(queries + i * p.head_dim, keys + lane * pitch, p.head_dim) : minus_infinity();
      // NaN, which fmaxf passes over, counts as 0: a row that sees nothing else must not be taken for one
      // that sees nothing.
      const float new_maximum = fmaxf(maximum[own], warp_max(std::isnan(score) ? 0.0F : score));
      if (new_maximum == minus_infinity()) {
        continue;  // the whole warp: nothing seen yet
      }
      const float correction = __expf(maximum[own] - new_maximum);
      const float probability = __expf(score - new_maximum);
      maximum[own] = new_maximum;
      sum[own] = sum[own] * correction + warp_sum(probability);
      result[own].scale(correction);
      result[own].add_rows(probability, values, pitch, p.head_dim);
    }
  }
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const int i = begin + warp * kOwn + own;
    if (i < p.query_len) {
      result[own].scale(sum[own] > 0.0F ? 1.0F / sum[own] : 0.0F);
      result[own].store(o + p.query_at(row, i, head), p.head_dim);
      if (lane == 0) {
        lse[p.statistic_at(row, i, head)] = maximum[own] + logf(sum[own]);  // −inf where nothing is seen
      }
    }
  }
}

/// With p = exp(s − lse) and ds = p · (do vᵀ − delta):  dq = scale · ds k
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads)
    attention_dq_kernel(AttentionProblem p, const T* q, const T* k, const T* v, const T* d_o,
                        const float* lse, const float* delta, T* dq) {
  SharedMemory smem;
  const int pitch = p.head_dim + 1;
  auto* queries = smem.take<float>(kOwned * p.head_dim);
  auto* gradients = smem.take<float>(kOwned * p.head_dim);
  auto* keys = smem.take<float>(kTile * pitch);
  auto* values = smem.take<float>(kTile * pitch);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int begin = static_cast<int>(blockIdx.x) * kOwned;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / p.group_size();
  const int row = static_cast<int>(blockIdx.z);

  const auto query_row = [&](int i) {
    return begin + i < p.query_len ? p.query_at(row, begin + i, head) : std::int64_t{-1};
  };
  load_rows(queries, p.head_dim, q, kOwned, p.head_dim, query_row);
  load_rows(gradients, p.head_dim, d_o, kOwned, p.head_dim, query_row);
  LaneColumns<kColumns> result[kOwn];
  const TileRange tiles = tiles_seen<kTile>(p, row, visible_to_tile<kOwned>(p, row, begin));
  for (int tile = tiles.begin; tile < tiles.end; ++tile) {
    const int key = tile * kTile + lane;
    const auto key_row = [&](int j) {
      return tile * kTile + j < p.key_len ? p.key_at(row, tile * kTile + j, kv_head) : std::int64_t{-1};
    };
    __syncthreads();
    load_rows(keys, pitch, k, kTile, p.head_dim, key_row);
    load_rows(values, pitch, v, kTile, p.head_dim, key_row);
    __syncthreads();
    const std::int32_t index =
        key < p.key_len ? p.key_index[static_cast<std::int64_t>(row) * p.key_len + key] : 0;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int i = warp * kOwn + own;
      float ds = 0.0F;
      if (key < p.key_len && visible_to(p, row, begin + i).sees(index)) {
        const std::int64_t at = p.statistic_at(row, begin + i, head);
        const float score = p.scale * dot(queries + i * p.head_dim, keys + lane * pitch, p.head_dim);
        const float dp = dot(gradients + i * p.head_dim, values + lane * pitch, p.head_dim);
        ds = __expf(score - lse[at]) * (dp - delta[at]) * p.scale;
      }
      result[own].add_rows(ds, keys, pitch, p.head_dim);
    }
  }
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const int i = begin + warp * kOwn + own;
    if (i < p.query_len) {
      result[own].store(dq + p.query_at(row, i, head), p.head_dim);
    }
  }
}

// ---- dk and dv: a block owns keys, the queries of all heads of the group come past in head order

/// dv = pᵀ do,  dk = scale · dsᵀ q
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads)
    attention_dkdv_kernel(AttentionProblem p, const T* q, const T* k, const T* v, const T* d_o,
                          const float* lse, const float* delta, T* dk, T* dv) {
  SharedMemory smem;
  const int pitch = p.head_dim + 1;
  auto* keys = smem.take<float>(kOwned * p.head_dim);
  auto* values = smem.take<float>(kOwned * p.head_dim);
  auto* queries = smem.take<float>(kTile * pitch);
  auto* gradients = smem.take<float>(kTile * pitch);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int begin = static_cast<int>(blockIdx.x) * kOwned;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const std::int32_t* index = p.key_index + static_cast<std::int64_t>(row) * p.key_len;
  const int last = begin + kOwned < p.key_len ? begin + kOwned - 1 : p.key_len - 1;

  const auto key_row = [&](int j) {
    return begin + j < p.key_len ? p.key_at(row, begin + j, kv_head) : std::int64_t{-1};
  };
  load_rows(keys, p.head_dim, k, kOwned, p.head_dim, key_row);
  load_rows(values, p.head_dim, v, kOwned, p.head_dim, key_row);
  LaneColumns<kColumns> dk_sum[kOwn];
  LaneColumns<kColumns> dv_sum[kOwn];
  for (int head = kv_head * p.group_size(); head < (kv_head + 1) * p.group_size(); ++head) {
    for (int tile = 0; tile * kTile < p.query_len; ++tile) {
      const Visible seen = visible_to_tile<kTile>(p, row, tile * kTile);
      if (seen.last < index[begin] || seen.first > index[last]) {
        continue;  // the whole block
      }
      const auto query_row = [&](int i) {
        return tile * kTile + i < p.query_len ? p.query_at(row, tile * kTile + i, head) : std::int64_t{-1};
      };
      __syncthreads();
      load_rows(queries, pitch, q, kTile, p.head_dim, query_row);
      load_rows(gradients, pitch, d_o, kTile, p.head_dim, query_row);
      __syncthreads();
      const int i = tile * kTile + lane;
      const Visible mine = visible_to(p, row, i);
      const std::int64_t at = i < p.query_len ? p.statistic_at(row, i, head) : 0;
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        const int j = warp * kOwn + own;
        float probability = 0.0F;
        float ds = 0.0F;
        if (begin + j < p.key_len && mine.sees(index[begin + j])) {
          const float score = p.scale * dot(queries + lane * pitch, keys + j * p.head_dim, p.head_dim);
          const float dp = dot(gradients + lane * pitch, values + j * p.head_dim, p.head_dim);
          probability = __expf(score - lse[at]);
          ds = probability * (dp - delta[at]) * p.scale;
        }
        dv_sum[own].add_rows(probability, gradients, pitch, p.head_dim);
        dk_sum[own].add_rows(ds, queries, pitch, p.head_dim);
      }
    }
  }
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const int j = begin + warp * kOwn + own;
    if (j < p.key_len) {
      dk_sum[own].store(dk + p.key_at(row, j, kv_head), p.head_dim);
      dv_sum[own].store(dv + p.key_at(row, j, kv_head), p.head_dim);
    }
  }
}

/// Calls body.template operator()<T, kColumns>().
template <class Body>
void with_columns(const TensorView& q, std::int64_t head_dim, Body&& body) {
  check_head_dim(head_dim, "at most 256", head_dim <= 256);
  with_storage(q, [&]<class T>() {
    if (head_dim <= 64) {
      body.template operator()<T, 2>();
    } else if (head_dim <= 128) {
      body.template operator()<T, 4>();
    } else {
      body.template operator()<T, 8>();
    }
  });
}

LaunchShape tiles_shape(std::int64_t length, std::int64_t heads, const AttentionShape& shape,
                        StreamHandle stream) {
  return {.grid = {static_cast<unsigned>((length + kOwned - 1) / kOwned), static_cast<unsigned>(heads),
                   static_cast<unsigned>(shape.batch)},
          .block = kThreads,
          .shared_bytes = shared_bytes(shape.head_dim),
          .stream = stream};
}

void launch_forward(const AttentionForwardArgs& args, StreamHandle stream) {
  with_columns(args.q, args.shape.head_dim, [&]<class T, int kColumns>() {
    launch("attention_forward", attention_forward_kernel<T, kColumns>,
           tiles_shape(args.shape.query_len, args.shape.n_heads, args.shape, stream),
           attention_problem(args.shape, args.mask, args.lse), args.q.data<T>(), args.k.data<T>(),
           args.v.data<T>(), args.o.data<T>(), args.lse.data<float>());
  });
}

/// delta [H, B·Sq] as lse lies.
void launch_backward(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream) {
  const AttentionShape& shape = args.shape;
  with_columns(args.q, shape.head_dim, [&]<class T, int kColumns>() {
    const AttentionProblem problem = attention_problem(shape, args.mask, args.lse);
    if (args.q.numel() > 0) {
      launch("attention_dq", attention_dq_kernel<T, kColumns>,
             tiles_shape(shape.query_len, shape.n_heads, shape, stream), problem, args.q.data<T>(),
             args.k.data<T>(), args.v.data<T>(), args.d_o.data<T>(), args.lse.data<float>(), delta,
             args.dq.data<T>());
    }
    if (args.k.numel() > 0) {
      launch("attention_dkdv", attention_dkdv_kernel<T, kColumns>,
             tiles_shape(shape.key_len, shape.n_kv_heads, shape, stream), problem, args.q.data<T>(),
             args.k.data<T>(), args.v.data<T>(), args.d_o.data<T>(), args.lse.data<float>(), delta,
             args.dk.data<T>(), args.dv.data<T>());
    }
  });
}

}  // namespace

void attention_forward(const AttentionForwardArgs& args, StreamHandle stream) {
  check_contiguous("attention_forward", {&args.q, &args.k, &args.v, &args.o, &args.lse});
  if (args.q.numel() == 0) {
    return;
  }
  if (uses_hopper_attention() && hopper::takes(args)) {
    hopper::attention_forward(args, stream);
    return;
  }
  if (runs_on_tensor_cores(args)) {
    attention_forward_tensor_core(args, stream);
    return;
  }
  for_each_part(
      args, [&](const AttentionForwardArgs& part, std::int64_t /*first*/) { launch_forward(part, stream); });
}

std::int64_t attention_backward_workspace_bytes(const AttentionShape& shape) {
  const std::int64_t delta =
      shape.batch * shape.query_len * shape.n_heads * static_cast<std::int64_t>(sizeof(float));
  return std::max(delta, attention_backward_tensor_core_workspace_bytes(shape));
}

void attention_backward(const AttentionBackwardArgs& args, const Workspace& workspace, StreamHandle stream) {
  const AttentionShape& shape = args.shape;
  check_contiguous("attention_backward",
                   {&args.q, &args.k, &args.v, &args.o, &args.lse, &args.d_o, &args.dq, &args.dk, &args.dv});
  check_workspace("attention_backward", workspace.bytes, attention_backward_workspace_bytes(shape));
  if (uses_hopper_attention() && hopper::takes(args)) {
    hopper::attention_backward(args, workspace, stream);
    return;
  }
  if (args.q.numel() > 0 && args.k.numel() > 0 && runs_on_tensor_cores(args)) {
    attention_backward_tensor_core(args, workspace, stream);
    return;
  }
  auto* delta = static_cast<float*>(workspace.data);
  if (args.q.numel() > 0) {
    attention_delta(args, delta, stream);
  }
  for_each_part(args, [&](const AttentionBackwardArgs& part, std::int64_t first) {
    launch_backward(part, delta + first, stream);
  });
}

}  // namespace caravan::cuda

// What is done around attention to each query of each head: Σ do · o for the backward pass (Dao 2023,
// algorithm 2, line 4), and two results over different keys made into one. A few lanes share a query's head.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 128;

/// delta [H, tokens] = Σ over a head's elements of o · do, both [tokens, H, head_dim].
template <class T, int N, int kLanes>
__global__ void __launch_bounds__(kThreads)
    attention_delta_kernel(const T* o, const T* d_o, std::int64_t tokens, int n_heads, int head_dim,
                           float* delta) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t pair = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const bool is_there = pair < tokens * n_heads;
  float sum = 0.0F;
  if (is_there) {
#pragma unroll 1  // usually there is one
    for (int e = lane * N; e < head_dim; e += kLanes * N) {
      const Pack<T, N> value = load_pack<N>(o + pair * head_dim + e);
      const Pack<T, N> gradient = load_pack<N>(d_o + pair * head_dim + e);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum += load_float(value[i]) * load_float(gradient[i]);
      }
    }
  }
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  }
  if (is_there && lane == 0) {
    delta[pair % n_heads * tokens + pair / n_heads] = sum;
  }
}

/// lse' = log(exp(lse) + exp(lse_part)),  o' = exp(lse − lse') · o + exp(lse_part − lse') · o_part
template <class T, int N, int kLanes>
__global__ void __launch_bounds__(kThreads)
    attention_merge_kernel(T* o, float* lse, const T* o_part, const float* lse_part, std::int64_t tokens,
                           int n_heads, int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t pair = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const bool is_there = pair < tokens * n_heads;
  const std::int64_t at = pair % n_heads * tokens + pair / n_heads;
  const float whole = is_there ? lse[at] : minus_infinity();
  const float part = is_there ? lse_part[at] : minus_infinity();
  __syncwarp();  // all lanes have read lse
  if (part == minus_infinity()) {
    return;  // nothing to add, the bits stay; nobody waits any more
  }
  const bool is_first = whole == minus_infinity();  // what o holds is no result then
  const float larger = fmaxf(whole, part);
  const float merged = is_first ? part : larger + logf(__expf(whole - larger) + __expf(part - larger));
  const float keep = __expf(whole - merged);
  const float take = __expf(part - merged);
  for (int e = lane * N; e < head_dim; e += kLanes * N) {
    Pack<T, N> mine = load_pack<N>(o + pair * head_dim + e);
    const Pack<T, N> theirs = load_pack<N>(o_part + pair * head_dim + e);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      mine[i] =
          is_first ? theirs[i] : store_float<T>(keep * load_float(mine[i]) + take * load_float(theirs[i]));
    }
    store_pack<N>(o + pair * head_dim + e, mine);
  }
  if (lane == 0) {
    lse[at] = merged;
  }
}

/// Calls body.template operator()<T, N, kLanes>() for the widest accesses that heads of this size allow.
template <class Body>
void with_lanes(const TensorView& o, const void* other, std::int64_t head_dim, Body&& body) {
  with_storage(o, [&]<class T>() {
    constexpr int kN = kPackSize<T>;
    if (head_dim % kN != 0 || !is_aligned(o.data<T>(), static_cast<const T*>(other))) {
      body.template operator()<T, 1, kWarpSize>();
    } else if (head_dim / kN <= 8) {
      body.template operator()<T, kN, 8>();
    } else {
      body.template operator()<T, kN, 16>();
    }
  });
}

LaunchShape shape_of(std::int64_t pairs, int lanes, StreamHandle stream) {
  return {.grid = static_cast<unsigned>((pairs * lanes + kThreads - 1) / kThreads),
          .block = kThreads,
          .stream = stream};
}

}  // namespace

void attention_delta(const AttentionBackwardArgs& args, float* delta, StreamHandle stream) {
  const std::int64_t tokens = args.shape.batch * args.shape.query_len;
  const auto n_heads = static_cast<int>(args.shape.n_heads);
  const auto head_dim = static_cast<int>(args.shape.head_dim);
  with_lanes(args.o, args.d_o.raw(), head_dim, [&]<class T, int N, int kLanes>() {
    launch("attention_delta", attention_delta_kernel<T, N, kLanes>,
           shape_of(tokens * n_heads, kLanes, stream), args.o.data<T>(), args.d_o.data<T>(), tokens, n_heads,
           head_dim, delta);
  });
}

void attention_merge(const AttentionMergeArgs& args, StreamHandle stream) {
  if (args.o.numel() == 0) {
    return;
  }
  const std::int64_t tokens = args.o.dim(0);
  const auto n_heads = static_cast<int>(args.lse.dim(0));
  const auto head_dim = static_cast<int>(args.o.dim(1)) / n_heads;
  with_lanes(args.o, args.o_part.raw(), head_dim, [&]<class T, int N, int kLanes>() {
    launch("attention_merge", attention_merge_kernel<T, N, kLanes>,
           shape_of(tokens * n_heads, kLanes, stream), args.o.data<T>(), args.lse.data<float>(),
           args.o_part.data<T>(), args.lse_part.data<float>(), tokens, n_heads, head_dim);
  });
}

}  // namespace caravan::cuda

// RMSNorm (Zhang and Sennrich 2019, eq. 4) with the pending residual add in front: forward; norm_backward.cu
// is the other half. The derivation is docs/derivations/rmsnorm.md.
#include "kernels/cuda/norm_rows.h"

namespace caravan::cuda {
namespace {

/// A block for each row.
template <class T>
struct ForwardRow {
  const T* x;
  const T* delta;  // null: none pending
  T* sum;
  const T* weight;
  T* y;
  float* rstd;
  int width;
  float eps;
};

template <class T, int N, int kPacks>
__global__ void __launch_bounds__(kMostNormThreads) rmsnorm_forward_kernel(ForwardRow<T> p) {
  SharedMemory smem;
  auto* scratch = smem.take<float>(kNormScratchFloats);
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const std::int64_t base = row * p.width;
  constexpr int kKept = kPacks > 0 ? kPacks : 1;
  Pack<T, N> kept[kKept] = {};
  float squares = 0.0F;
  for_columns<N, kPacks>(p.width, [&](int column, int k) {
    Pack<T, N> x = load_pack<N>(p.x + base + column);
    if (p.delta != nullptr) {
      const Pack<T, N> delta = load_pack<N>(p.delta + base + column);
#pragma unroll
      for (int i = 0; i < N; ++i) {  // the stream as it is stored: the backward pass sees the same rounding
        x[i] = store_float<T>(load_float(x[i]) + load_float(delta[i]));
      }
      store_pack<N>(p.sum + base + column, x);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      squares += load_float(x[i]) * load_float(x[i]);
    }
    kept[k] = x;
  });
  const float rstd = rsqrtf(block_sum(squares, scratch) / static_cast<float>(p.width) + p.eps);
  if (threadIdx.x == 0) {
    p.rstd[row] = rstd;
  }
  const T* stream = p.delta != nullptr ? p.sum : p.x;  // what this thread has written itself
  for_columns<N, kPacks>(p.width, [&](int column, int k) {
    const Pack<T, N> x = kPacks > 0 ? kept[k] : load_pack<N>(stream + base + column);
    const Pack<T, N> weight = load_pack<N>(p.weight + column);
    Pack<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      y[i] = store_float<T>(load_float(x[i]) * rstd * load_float(weight[i]));
    }
    store_pack<N>(p.y + base + column, y);
  });
}

template <class T>
void launch_forward(const ForwardRow<T>& p, std::int64_t rows, StreamHandle stream) {
  with_packs<T>(p.width, is_aligned(p.x, p.delta, p.sum, p.weight, p.y),
                [&]<int N, int kPacks>(unsigned threads) {
                  launch("rmsnorm_forward", rmsnorm_forward_kernel<T, N, kPacks>,
                         {.grid = static_cast<unsigned>(rows),
                          .block = threads,
                          .shared_bytes = kNormScratchFloats * sizeof(float),
                          .stream = stream},
                         p);
                });
}

}  // namespace

void rmsnorm_forward(const RmsNormForwardArgs& args, StreamHandle stream) {
  if (args.rstd.numel() == 0) {
    return;
  }
  with_storage(args.y, [&]<class T>() {
    const bool has_delta = args.delta.defined();
    launch_forward<T>({.x = args.x.data<T>(),
                       .delta = has_delta ? args.delta.data<T>() : nullptr,
                       .sum = has_delta ? args.sum.data<T>() : nullptr,
                       .weight = args.weight.data<T>(),
                       .y = args.y.data<T>(),
                       .rstd = args.rstd.data<float>(),
                       .width = static_cast<int>(args.weight.dim(0)),
                       .eps = static_cast<float>(args.eps)},
                      args.rstd.numel(), stream);
  });
}

}  // namespace caravan::cuda

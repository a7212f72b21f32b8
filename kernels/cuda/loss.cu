// Cross entropy over a chunk of logits: a block per row, maximum and sum in one pass (online softmax, Milakov
// and Gimelshein 2018), the gradient in place. The derivation is docs/derivations/cross_entropy.md.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;

/// Σ exp(logit − maximum) of the logits seen so far; {−inf, 0} of none.
struct OnlineSum {
  float maximum;
  float sum;
};

__device__ float minus_infinity() {
  return __uint_as_float(0xff800000U);
}

__device__ OnlineSum combined(OnlineSum a, OnlineSum b) {
  const float maximum = fmaxf(a.maximum, b.maximum);
  if (maximum == minus_infinity()) {
    return {maximum, a.sum + b.sum};  // −inf − (−inf) is no number; the sums are 0, or NaN if a logit was
  }
  return {maximum, a.sum * __expf(a.maximum - maximum) + b.sum * __expf(b.maximum - maximum)};
}

struct Reduction {
  OnlineSum* per_warp;  // [kWarps] in shared memory

  /// The same in every thread.
  __device__ OnlineSum of_block(OnlineSum mine) const {
#pragma unroll
    for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
      mine = combined(mine, {__shfl_xor_sync(kAllLanes, mine.maximum, lanes),
                             __shfl_xor_sync(kAllLanes, mine.sum, lanes)});
    }
    const int thread = static_cast<int>(threadIdx.x);
    if (thread % kWarpSize == 0) {
      per_warp[thread / kWarpSize] = mine;
    }
    __syncthreads();
    OnlineSum all = per_warp[0];
    for (int warp = 1; warp < kWarps; ++warp) {
      all = combined(all, per_warp[warp]);
    }
    return all;
  }
};

template <int N, class T>
__device__ OnlineSum sum_of_row(const T* row, int width) {
  OnlineSum mine{minus_infinity(), 0.0F};
  for (int column = static_cast<int>(threadIdx.x) * N; column < width; column += kThreads * N) {
    const Pack<T, N> pack = load_pack<N>(row + column);
    float maximum = mine.maximum;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      maximum = fmaxf(maximum, load_float(pack[i]));
    }
    // Nothing seen yet but −inf, or NaN, which fmaxf passes over and the sum must not.
    const float base = maximum == minus_infinity() ? 0.0F : maximum;
    float sum = mine.sum * __expf(mine.maximum - base);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum += __expf(load_float(pack[i]) - base);
    }
    mine = {maximum, sum};
  }
  return mine;
}

/// Of a row's gradient.
__device__ float gradient_factor(float weight, const StepScalars* scalars) {
  return static_cast<float>(static_cast<double>(weight) * scalars->inv_valid_tokens * scalars->loss_scale);
}

/// logits = (exp(logit − lse) − [column is the target]) · factor
template <int N, class T>
__device__ void write_gradient(T* row, int width, std::int64_t target_column, float lse, float weight,
                               float factor) {
  for (int column = static_cast<int>(threadIdx.x) * N; column < width; column += kThreads * N) {
    Pack<T, N> pack = load_pack<N>(row + column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float onehot = column + i == target_column ? 1.0F : 0.0F;
      const float gradient = (__expf(load_float(pack[i]) - lse) - onehot) * factor;
      pack[i] = store_float<T>(weight == 0.0F ? 0.0F : gradient);
    }
    store_pack<N>(row + column, pack);
  }
}

template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_stats_kernel(const T* logits, const std::int32_t* targets, std::int64_t vocab_begin,
                               int width, float* row_max, float* row_sum, float* target_logit) {
  SharedMemory smem;
  const Reduction reduction{smem.take<OnlineSum>(kWarps)};
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const T* values = logits + row * width;
  const OnlineSum all = reduction.of_block(sum_of_row<N>(values, width));
  if (threadIdx.x == 0) {
    row_max[row] = all.maximum;
    row_sum[row] = all.sum;
    const std::int64_t column = targets[row] - vocab_begin;
    target_logit[row] = column >= 0 && column < width ? load_float(values[column]) : 0.0F;
  }
}

template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_backward_kernel(T* logits, const std::int32_t* targets, const float* target_weights,
                                  const float* lse, std::int64_t vocab_begin, int width,
                                  const StepScalars* scalars) {
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const float weight = target_weights[row];
  const float factor = gradient_factor(weight, scalars);
  write_gradient<N>(logits + row * width, width, targets[row] - vocab_begin, lse[row], weight, factor);
}

/// `scalars` null: the losses alone.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(T* logits, const std::int32_t* targets, const float* target_weights, float* losses,
                         int width, const StepScalars* scalars) {
  SharedMemory smem;
  const Reduction reduction{smem.take<OnlineSum>(kWarps)};
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  T* values = logits + row * width;
  const float weight = target_weights[row];
  const std::int32_t target = targets[row];
  // Before the barrier: the second pass overwrites it.
  const float at_target = target >= 0 && target < width ? load_float(values[target]) : 0.0F;
  const OnlineSum all = reduction.of_block(sum_of_row<N>(values, width));
  const float row_lse = all.maximum + logf(all.sum);
  if (threadIdx.x == 0) {
    losses[row] = weight == 0.0F ? 0.0F : weight * (row_lse - at_target);
  }
  if (scalars == nullptr) {
    return;
  }
  const float factor = gradient_factor(weight, scalars);
  write_gradient<N>(values, width, target, row_lse, weight, factor);
}

struct Rescale {
  const float* common_max;
  float* row_max;
  float* row_sum;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    const float sum = row_sum[at];
    row_sum[at] = sum == 0.0F ? 0.0F : sum * __expf(row_max[at] - common_max[at]);
    row_max[at] = common_max[at];
  }
};

struct Loss {
  const float* row_max;
  const float* row_sum;
  const float* target_logit;
  const float* target_weights;
  float* lse;
  float* losses;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    const float row_lse = row_max[at] + logf(row_sum[at]);
    const float weight = target_weights[at];
    lse[at] = row_lse;
    losses[at] = weight == 0.0F ? 0.0F : weight * (row_lse - target_logit[at]);
  }
};

/// Calls body.template operator()<T, N>() for the type of the logits and the widest access their rows allow.
template <class Body>
void with_row_packs(const TensorView& logits, Body&& body) {
  with_storage(logits, [&]<class T>() {
    if (logits.dim(1) % kPackSize<T> == 0 && is_aligned(logits.data<T>())) {
      body.template operator()<T, kPackSize<T>>();
    } else {
      body.template operator()<T, 1>();
    }
  });
}

LaunchShape row_shape(std::int64_t rows, std::size_t shared_bytes, StreamHandle stream) {
  return {
      .grid = static_cast<unsigned>(rows), .block = kThreads, .shared_bytes = shared_bytes, .stream = stream};
}

}  // namespace

void cross_entropy_stats(const CrossEntropyStatsArgs& args, StreamHandle stream) {
  if (args.targets.numel() == 0) {
    return;
  }
  with_row_packs(args.logits, [&]<class T, int N>() {
    launch("cross_entropy_stats", cross_entropy_stats_kernel<N, T>,
           row_shape(args.targets.numel(), kWarps * sizeof(OnlineSum), stream), args.logits.data<T>(),
           args.targets.data<std::int32_t>(), args.vocab_begin, static_cast<int>(args.logits.dim(1)),
           args.row_max.data<float>(), args.row_sum.data<float>(), args.target_logit.data<float>());
  });
}

void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, StreamHandle stream) {
  const Rescale op{args.common_max.data<float>(), args.row_max.data<float>(), args.row_sum.data<float>()};
  launch_elementwise<1>("cross_entropy_rescale", op, args.row_sum.numel(), false, stream);
}

void cross_entropy_loss(const CrossEntropyLossArgs& args, StreamHandle stream) {
  const Loss op{args.row_max.data<float>(),      args.row_sum.data<float>(),
                args.target_logit.data<float>(), args.target_weights.data<float>(),
                args.lse.data<float>(),          args.losses.data<float>()};
  launch_elementwise<1>("cross_entropy_loss", op, args.losses.numel(), false, stream);
}

void cross_entropy_backward(const CrossEntropyBackwardArgs& args, StreamHandle stream) {
  if (args.logits.numel() == 0) {
    return;
  }
  with_row_packs(args.logits, [&]<class T, int N>() {
    launch("cross_entropy_backward", cross_entropy_backward_kernel<N, T>,
           row_shape(args.targets.numel(), 0, stream), args.logits.data<T>(),
           args.targets.data<std::int32_t>(), args.target_weights.data<float>(), args.lse.data<float>(),
           args.vocab_begin, static_cast<int>(args.logits.dim(1)), args.scalars);
  });
}

void cross_entropy(const CrossEntropyArgs& args, StreamHandle stream) {
  if (args.logits.numel() == 0) {
    return;
  }
  const StepScalars* scalars = args.logits_after == LogitsAfter::kGradient ? args.scalars : nullptr;
  with_row_packs(args.logits, [&]<class T, int N>() {
    launch("cross_entropy", cross_entropy_kernel<N, T>,
           row_shape(args.targets.numel(), kWarps * sizeof(OnlineSum), stream), args.logits.data<T>(),
           args.targets.data<std::int32_t>(), args.target_weights.data<float>(), args.losses.data<float>(),
           static_cast<int>(args.logits.dim(1)), scalars);
  });
}

}  // namespace caravan::cuda

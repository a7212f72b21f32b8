// AdamW (Loshchilov and Hutter 2019, algorithm 2) in PyTorch's order of operations, the sum of squares behind
// the gradient norm, and the sum of losses. The derivation is docs/derivations/adamw.md.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/philox.h"

namespace caravan::cuda {
namespace {

// ---- AdamW

/// What is the same for all elements of a step.
struct AdamwFactors {
  float clip, decay, step, root_correction;
};

template <class T, class G>
struct Adamw {
  T* param;
  const G* grad;
  float* m;
  float* v;
  float* master;  // null: param is the value itself
  const StepScalars* scalars;
  const UpdateState* state;
  double weight_decay;
  float mix1, keep2, mix2, eps;  // as in reference/optimizer_step.h
  StochasticRounding rounding;
  std::int64_t columns;  // of param

  __device__ AdamwFactors factors() const {
    return {.clip = static_cast<float>(state->gradient_factor),
            .decay = static_cast<float>(scalars->lr * weight_decay),
            .step = static_cast<float>(scalars->lr / state->bias_correction1),
            .root_correction = static_cast<float>(state->bias_correction2_sqrt)};
  }

  /// 16 random bits of an element; neighbours that share a block of the generator share its computation.
  struct Bits {
    PhiloxBlock block;
    std::int64_t number = -1;
  };
  __device__ unsigned random_bits(std::int64_t element, Bits& bits) const {
    std::int64_t place = rounding.row_begin * rounding.global_cols + rounding.col_begin + element;
    if (columns != rounding.global_cols) {
      place += element / columns * (rounding.global_cols - columns);
    }
    if (place / 8 != bits.number) {
      bits.number = place / 8;
      bits.block = philox_block(rounding.seed, rounding.stream + static_cast<std::uint64_t>(state->updates),
                                static_cast<std::uint64_t>(bits.number));
    }
    // An array in registers has no index that is known at run time only.
    const std::uint32_t(&words)[4] = bits.block.words;
    const std::uint32_t low = place % 4 < 2 ? words[0] : words[1];
    const std::uint32_t high = place % 4 < 2 ? words[2] : words[3];
    const std::uint32_t word = place % 8 < 4 ? low : high;
    return place % 2 == 0 ? word & 0xffffU : word >> 16U;
  }

  /// Adding 16 random bits below the mantissa and cutting carries with the probability of what is cut off.
  /// Infinities and NaN stay what they are.
  __device__ T rounded(float value, std::int64_t element, Bits& bits) const {
    if constexpr (std::is_same_v<T, BFloat16>) {
      const unsigned all = __float_as_uint(value);
      if (rounding.is_on && (all & 0x7f800000U) != 0x7f800000U) {
        return BFloat16{static_cast<std::uint16_t>((all + random_bits(element, bits)) >> 16U)};
      }
    }
    return store_float<T>(value);
  }

  template <int N>
  __device__ void apply(std::int64_t at) const {
    if (state->is_skipped != 0) {
      return;
    }
    const AdamwFactors f = factors();
    Bits bits{};
    Pack<float, N> exact;
    if (master != nullptr) {
      exact = load_pack<N>(master + at);
    } else {
      const Pack<T, N> p = load_pack<N>(param + at);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        exact[i] = load_float(p[i]);
      }
    }
    Pack<T, N> p;
    const Pack<G, N> gradient = load_pack<N>(grad + at);
    Pack<float, N> first = load_pack<N>(m + at);
    Pack<float, N> second = load_pack<N>(v + at);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float value = exact[i];
      const float g = load_float(gradient[i]) * f.clip;
      value -= f.decay * value;
      first[i] += mix1 * (g - first[i]);
      second[i] = keep2 * second[i] + mix2 * g * g;
      value -= f.step * first[i] / (sqrtf(second[i]) / f.root_correction + eps);
      exact[i] = value;
      p[i] = rounded(value, at + i, bits);
    }
    store_pack<N>(param + at, p);
    store_pack<N>(m + at, first);
    store_pack<N>(v + at, second);
    if (master != nullptr) {
      store_pack<N>(master + at, exact);
    }
  }
};

// ---- sums

constexpr int kThreads = 256;
constexpr std::int64_t kMostParts = 1024;

std::int64_t parts_of(std::int64_t count) {
  constexpr std::int64_t kFewest = 16 * kThreads;  // elements of a part
  return std::clamp<std::int64_t>((count + kFewest - 1) / kFewest, 1, kMostParts);
}

struct Plain {
  __device__ static double of(float x) { return static_cast<double>(x); }
};
struct Square {
  __device__ static double of(float x) { return static_cast<double>(x) * static_cast<double>(x); }
};

template <class Term, int N, class T>
__global__ void __launch_bounds__(kThreads)
    sum_parts_kernel(const T* x, std::int64_t count, double* partials) {
  SharedMemory smem;
  auto* scratch = smem.take<double>(kThreads / kWarpSize);
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + static_cast<std::int64_t>(threadIdx.x);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  double sum = 0.0;
  for (std::int64_t pack = first; pack < count / N; pack += step) {
    const Pack<T, N> values = load_pack<N>(x + pack * N);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum += Term::of(load_float(values[i]));
    }
  }
  if (first < count % N) {
    sum += Term::of(load_float(x[count / N * N + first]));
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) {
    partials[blockIdx.x] = sum;
  }
}

/// One block: every thread its parts in order, then over threads in a fixed tree.
__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const double* partials, std::int64_t parts, double* result) {
  SharedMemory smem;
  auto* scratch = smem.take<double>(kThreads / kWarpSize);
  double sum = 0.0;
  for (auto part = static_cast<std::int64_t>(threadIdx.x); part < parts; part += kThreads) {
    sum += partials[part];
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) {
    *result += sum;
  }
}

template <class Term, class T>
void sum_terms(NamedCall name, const TensorView& x, double* result, const Workspace& workspace,
               StreamHandle stream) {
  check_workspace(name.name, workspace.bytes, sum_workspace_bytes(x));
  const std::int64_t parts = parts_of(x.numel());
  auto* partials = static_cast<double*>(workspace.data);
  const auto shape = [&](std::int64_t blocks) {
    return LaunchShape{.grid = static_cast<unsigned>(blocks),
                       .block = kThreads,
                       .shared_bytes = kThreads / kWarpSize * sizeof(double),
                       .stream = stream};
  };
  const T* data = x.data<T>();
  if (is_aligned(data)) {
    launch(name, sum_parts_kernel<Term, kPackSize<T>, T>, shape(parts), data, x.numel(), partials);
  } else {
    launch(name, sum_parts_kernel<Term, 1, T>, shape(parts), data, x.numel(), partials);
  }
  launch("add_parts", add_parts_kernel, shape(1), partials, parts, result);
}

}  // namespace

void adamw(const AdamwArgs& args, StreamHandle stream) {
  const bool has_master = args.master.defined();
  check_rounding(args.param, has_master, args.rounding.is_on);
  with_storage(args.param, [&]<class T>() {
    with_gradient<T>(args.grad, [&]<class G>() {
      const Adamw<T, G> op{.param = args.param.data<T>(),
                           .grad = args.grad.data<G>(),
                           .m = args.m.data<float>(),
                           .v = args.v.data<float>(),
                           .master = has_master ? args.master.data<float>() : nullptr,
                           .scalars = args.scalars,
                           .state = args.state,
                           .weight_decay = args.weight_decay,
                           .mix1 = static_cast<float>(1.0 - args.beta1),
                           .keep2 = static_cast<float>(args.beta2),
                           .mix2 = static_cast<float>(1.0 - args.beta2),
                           .eps = static_cast<float>(args.eps),
                           .rounding = args.rounding,
                           .columns = args.param.dim(args.param.rank() - 1)};
      launch_elementwise<4>("adamw", op, args.param.numel(),
                            is_aligned(op.param, op.grad, op.m, op.v, op.master), stream);
    });
  });
}

std::int64_t sum_workspace_bytes(const TensorView& x) {
  return parts_of(x.numel()) * static_cast<std::int64_t>(sizeof(double));
}

void sum(const SumArgs& args, const Workspace& workspace, StreamHandle stream) {
  check_float32(args.x);
  sum_terms<Plain, float>("sum", args.x, args.result.data<double>(), workspace, stream);
}

void sum_squares(const SumSquaresArgs& args, const Workspace& workspace, StreamHandle stream) {
  with_storage(args.x, [&]<class T>() {
    sum_terms<Square, T>("sum_squares", args.x, args.result.data<double>(), workspace, stream);
  });
}

}  // namespace caravan::cuda

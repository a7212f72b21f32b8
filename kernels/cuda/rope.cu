// Rotary position embedding on interleaved pairs (Su et al. 2021, eq. 34), in place. The derivation is
// docs/derivations/rope.md.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

template <class T>
struct Rotation {
  T* x;
  const std::int32_t* positions;
  const float* cos_table;
  const float* sin_table;
  float sign;  // −1: backward, the other way
  std::int64_t width;
  int head_dim;

  /// N elements of one head; N is even and divides head_dim. kAccess elements are read at once.
  template <int N, int kAccess>
  __device__ void rotate(std::int64_t at) const {
    const std::int64_t row = static_cast<std::int64_t>(positions[at / width]) * (head_dim / 2);
    const int first_pair = static_cast<int>(at % width % head_dim) / 2;
    T values[N];
#pragma unroll
    for (int i = 0; i < N; i += kAccess) {
      const Pack<T, kAccess> pack = load_pack<kAccess>(x + at + i);
#pragma unroll
      for (int j = 0; j < kAccess; ++j) {
        values[i + j] = pack[j];
      }
    }
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const float cosine = cos_table[row + first_pair + i / 2];
      const float sine = sign * sin_table[row + first_pair + i / 2];
      const float a = load_float(values[i]);
      const float b = load_float(values[i + 1]);
      values[i] = store_float<T>(a * cosine - b * sine);
      values[i + 1] = store_float<T>(a * sine + b * cosine);
    }
#pragma unroll
    for (int i = 0; i < N; i += kAccess) {
      Pack<T, kAccess> pack;
#pragma unroll
      for (int j = 0; j < kAccess; ++j) {
        pack[j] = values[i + j];
      }
      store_pack<kAccess>(x + at + i, pack);
    }
  }
};

/// `count` is in units of N elements.
template <int N, int kAccess, class T>
__global__ void __launch_bounds__(kElementwiseThreads) rope_kernel(Rotation<T> rotation, std::int64_t count) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kElementwiseThreads;
  std::int64_t unit =
      static_cast<std::int64_t>(blockIdx.x) * kElementwiseThreads + static_cast<std::int64_t>(threadIdx.x);
  for (; unit < count; unit += step) {
    rotation.template rotate<N, kAccess>(unit * N);
  }
}

}  // namespace

void rope(const RopeArgs& args, StreamHandle stream) {
  if (args.x.numel() == 0) {
    return;
  }
  with_storage(args.x, [&]<class T>() {
    constexpr int kN = kPackSize<T>;
    const Rotation<T> rotation{.x = args.x.data<T>(),
                               .positions = args.positions.data<std::int32_t>(),
                               .cos_table = args.cos.data<float>(),
                               .sin_table = args.sin.data<float>(),
                               .sign = args.direction == RopeDirection::kForward ? 1.0F : -1.0F,
                               .width = args.x.dim(1),
                               .head_dim = static_cast<int>(args.head_dim)};
    const bool in_packs = args.head_dim % kN == 0 && is_aligned(rotation.x);
    const std::int64_t count = args.x.numel() / (in_packs ? kN : 2);
    const LaunchShape shape{.grid = elementwise_grid(count), .block = kElementwiseThreads, .stream = stream};
    if (in_packs) {
      launch("rope", rope_kernel<kN, kN, T>, shape, rotation, count);
    } else {
      launch("rope", rope_kernel<2, 1, T>, shape, rotation, count);
    }
  });
}

}  // namespace caravan::cuda

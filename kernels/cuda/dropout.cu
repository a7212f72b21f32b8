// Dropout with a mask from a counter: nothing of it is stored, and the same elements are dropped wherever
// they are computed. The derivation is docs/derivations/dropout.md.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/philox.h"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDraws = 4;  // elements of one block of the generator

template <class T>
struct Dropout {
  const T* x;
  T* y;
  const std::int32_t* rows;
  const std::int32_t* places;
  const StepScalars* scalars;
  int width;
  std::uint32_t site;
  std::uint32_t threshold;
  float factor;
};

/// A block per token. N is 1, or a multiple of kDraws where columns begin at one.
template <int N, class T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(Dropout<T> p) {
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  const std::uint64_t key = p.scalars->dropout_key;
  const std::uint64_t stream =
      static_cast<std::uint32_t>(p.rows[token]) | (static_cast<std::uint64_t>(p.site) << 32U);
  const std::uint64_t place = static_cast<std::uint64_t>(static_cast<std::uint32_t>(p.places[token])) << 32U;
  const std::int64_t base = token * p.width;
  for (int column = static_cast<int>(threadIdx.x) * N; column < p.width; column += kThreads * N) {
    Pack<T, N> pack = load_pack<N>(p.x + base + column);
#pragma unroll
    for (int first = 0; first < N; first += kDraws) {
      const PhiloxBlock block =
          philox_block(key, stream, place | static_cast<std::uint32_t>((column + first) / kDraws));
#pragma unroll
      for (int i = first; i < N && i < first + kDraws; ++i) {
        // An array in registers has no index that is known at run time only.
        std::uint32_t word = block.words[i % kDraws];
        if constexpr (N == 1) {
          const std::uint32_t low = column % 2 == 0 ? block.words[0] : block.words[1];
          const std::uint32_t high = column % 2 == 0 ? block.words[2] : block.words[3];
          word = column % kDraws < 2 ? low : high;
        }
        pack[i] = store_float<T>(word < p.threshold ? 0.0F : load_float(pack[i]) * p.factor);
      }
    }
    store_pack<N>(p.y + base + column, pack);
  }
}

}  // namespace

void dropout(const DropoutArgs& args, StreamHandle stream) {
  if (args.x.numel() == 0) {
    return;
  }
  with_storage(args.x, [&]<class T>() {
    const Dropout<T> p{.x = args.x.data<T>(),
                       .y = args.y.data<T>(),
                       .rows = args.rows.data<std::int32_t>(),
                       .places = args.places.data<std::int32_t>(),
                       .scalars = args.scalars,
                       .width = static_cast<int>(args.x.dim(1)),
                       .site = args.site,
                       .threshold = static_cast<std::uint32_t>(args.rate * 0x1p32),
                       .factor = static_cast<float>(1.0 / (1.0 - args.rate))};
    const LaunchShape shape{
        .grid = static_cast<unsigned>(args.x.dim(0)), .block = kThreads, .stream = stream};
    if (p.width % kPackSize<T> == 0 && is_aligned(p.x, p.y)) {
      launch("dropout", dropout_kernel<kPackSize<T>, T>, shape, p);
    } else {
      launch("dropout", dropout_kernel<1, T>, shape, p);
    }
  });
}

}  // namespace caravan::cuda

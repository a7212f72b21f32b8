// A matrix times one vector: generation spends nearly all its time here, reading weights.
#include "kernels/cpu/simd/ops.h"
#include "kernels/cpu/simd/vector.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

/// Rows at a time: as many streams as the processor's prefetcher follows with ease, each with two sums so
/// that one addition need not wait for the other.
constexpr std::int64_t kRowsAtOnce = 4;

/// y of kRows rows. The order of additions within a row does not depend on kRows.
template <class T, int kRows>
inline void dots(const RowDots<T>& args, std::int64_t first) {
  constexpr std::int64_t kWidth = kLanes<T>;
  const std::int64_t width = args.width;
  const T* rows = args.rows + first * width;
  const T* x = args.x;
  Vec<T> even[kRows] = {};
  Vec<T> odd[kRows] = {};
  std::int64_t k = 0;
  for (; k + 2 * kWidth <= width; k += 2 * kWidth) {
    const Vec<T> x0 = load(x + k);
    const Vec<T> x1 = load(x + k + kWidth);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      even[i] += load(rows + i * width + k) * x0;
      odd[i] += load(rows + i * width + k + kWidth) * x1;
    }
  }
  for (; k < width; k += kWidth) {
    const std::int64_t count = width - k < kWidth ? width - k : kWidth;
    const Vec<T> x0 = load_up_to(x + k, count);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      even[i] += load_up_to(rows + i * width + k, count) * x0;
    }
  }
  for (int i = 0; i < kRows; ++i) {
    const T sum = sum_of<T>(even[i] + odd[i]);
    T* y = args.y + first + i;
    *y = args.adds ? *y + sum : sum;
  }
}

}  // namespace

template <class T>
void row_dots(const RowDots<T>& args) {
  std::int64_t i = 0;
  for (; i + kRowsAtOnce <= args.count; i += kRowsAtOnce) {
    dots<T, kRowsAtOnce>(args, i);
  }
  for (; i < args.count; ++i) {
    dots<T, 1>(args, i);
  }
}

template void row_dots(const RowDots<float>&);
template void row_dots(const RowDots<double>&);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

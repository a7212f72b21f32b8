// RMSNorm: each row is read from memory once and stays in cache for its second pass.
#include "kernels/cpu/simd/ops.h"
#include "kernels/cpu/simd/vector.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

/// Σ term(d) over [0, width) in four vectors of lanes; term(d, count) gives lanes d.. with zeros past
/// `count`.
template <class T, class Term>
inline T sum_terms(std::int64_t width, const Term& term) {
  constexpr std::int64_t kWidth = kLanes<T>;
  Vec<T> sums[4] = {};
  std::int64_t d = 0;
  for (; d + 4 * kWidth <= width; d += 4 * kWidth) {
#pragma GCC unroll 4
    for (std::int64_t v = 0; v < 4; ++v) {
      sums[v] += term(d + v * kWidth, kWidth);
    }
  }
  for (; d < width; d += kWidth) {
    sums[0] += term(d, width - d < kWidth ? width - d : kWidth);
  }
  return sum_of<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

template <class T>
void rmsnorm_forward(const RmsNormForwardRows<T>& args) {
  const std::int64_t width = args.width;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const T* x = args.x + row * width;
    if (args.delta != nullptr) {
      add(x, args.delta + row * width, args.sum + row * width, width);
      x = args.sum + row * width;
    }
    const T squares = sum_terms<T>(width, [x](std::int64_t d, std::int64_t count) {
      const Vec<T> value = load_up_to(x + d, count);
      return value * value;
    });
    const T rstd = T{1} / root_of(squares / static_cast<T>(width) + args.eps);
    args.rstd[row] = rstd;
    T* y = args.y + row * width;
    const T* weight = args.weight;
#pragma omp simd
    for (std::int64_t d = 0; d < width; ++d) {
      y[d] = x[d] * rstd * weight[d];
    }
  }
}

template <class T>
void rmsnorm_backward(const RmsNormBackwardRows<T>& args) {
  const std::int64_t width = args.width;
  const T* weight = args.weight;
  T* dweight = args.dweight;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const T* dy = args.dy + row * width;
    const T* x = args.x + row * width;
    const T rstd = args.rstd[row];
    const T dot = sum_terms<T>(width, [=](std::int64_t d, std::int64_t count) {
      return load_up_to(dy + d, count) * load_up_to(weight + d, count) * load_up_to(x + d, count);
    });
    const T s = dot * rstd / static_cast<T>(width);
    T* dx = args.dx + row * width;
#pragma omp simd
    for (std::int64_t d = 0; d < width; ++d) {
      dx[d] += (dy[d] * weight[d] - x[d] * rstd * s) * rstd;
    }
    if (dweight != nullptr) {
#pragma omp simd
      for (std::int64_t d = 0; d < width; ++d) {
        dweight[d] += dy[d] * (x[d] * rstd);
      }
    }
  }
}

template void rmsnorm_forward(const RmsNormForwardRows<float>&);
template void rmsnorm_forward(const RmsNormForwardRows<double>&);
template void rmsnorm_backward(const RmsNormBackwardRows<float>&);
template void rmsnorm_backward(const RmsNormBackwardRows<double>&);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

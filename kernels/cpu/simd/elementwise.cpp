// Loops over elements that memory limits: the compiler vectorises them.
#include "kernels/cpu/simd/ops.h"
#include "kernels/cpu/simd/vector.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {

template <class T>
void add(const T* x, const T* z, T* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = x[i] + z[i];
  }
}

template <class T>
void scale(T* x, T factor, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    x[i] *= factor;
  }
}

template <class T>
void adamw(const AdamwElements<T>& args) {
  const AdamwElements<T> a = args;  // a copy: the compiler then knows that the loop does not write to it
  const T inverse = T{1} / a.root_correction;  // one quotient an element instead of two; memory bounds both
#pragma omp simd
  for (std::int64_t i = 0; i < a.count; ++i) {
    const T g = a.grad[i] * a.clip;
    const T m = a.m[i] + a.mix1 * (g - a.m[i]);
    const T v = a.keep2 * a.v[i] + a.mix2 * g * g;
    const T decayed = a.param[i] - a.decay * a.param[i];
    a.m[i] = m;
    a.v[i] = v;
    a.param[i] = decayed - a.step * m / (root_of(v) * inverse + a.eps);
  }
}

/// Eight sums in double, added up in a fixed order.
namespace {

inline Vec<double> load_double(const double* from) {
  return load(from);
}
inline Vec<double> load_double(const float* from) {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Half values;
  __builtin_memcpy(&values, from, sizeof values);
  return __builtin_convertvector(values, Vec<double>);
}

}  // namespace

/// Four sums: one alone would wait for its own last addition, at half of what memory gives.
template <class T>
double sum_squares(const T* x, std::int64_t count) {
  constexpr std::int64_t kWidth = kLanes<double>;
  Vec<double> sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kWidth <= count; i += 4 * kWidth) {
#pragma GCC unroll 4
    for (std::int64_t s = 0; s < 4; ++s) {
      const Vec<double> value = load_double(x + i + s * kWidth);
      sums[s] += value * value;
    }
  }
  double rest = 0.0;
  for (; i < count; ++i) {
    const auto value = static_cast<double>(x[i]);
    rest += value * value;
  }
  return sum_of<double>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

template <class T>
void rope(const RopeRows<T>& args) {
  const std::int64_t half = args.head_dim / 2;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const T* cosines = args.cos + args.positions[row] * half;
    const T* sines = args.sin + args.positions[row] * half;
    for (std::int64_t head = 0; head < args.heads; ++head) {
      T* x = args.x + (row * args.heads + head) * args.head_dim;
#pragma omp simd
      for (std::int64_t pair = 0; pair < half; ++pair) {
        const T first = x[2 * pair];
        const T second = x[2 * pair + 1];
        const T sine = args.sign * sines[pair];
        x[2 * pair] = first * cosines[pair] - second * sine;
        x[2 * pair + 1] = first * sine + second * cosines[pair];
      }
    }
  }
}

template void add(const float*, const float*, float*, std::int64_t);
template void add(const double*, const double*, double*, std::int64_t);
template void scale(float*, float, std::int64_t);
template void scale(double*, double, std::int64_t);
template void adamw(const AdamwElements<float>&);
template void adamw(const AdamwElements<double>&);
template double sum_squares(const float*, std::int64_t);
template double sum_squares(const double*, std::int64_t);
template void rope(const RopeRows<float>&);
template void rope(const RopeRows<double>&);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

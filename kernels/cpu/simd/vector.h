// Vectors of the instruction set this translation unit is compiled for, by the compiler's vector extension.
// Nothing here has external linkage outside the level's namespace, and no standard header with inline
// functions is included: the linker must not pick a copy compiled for a newer machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caravan::simd::CARAVAN_SIMD_LEVEL {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kRegisters = 32;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kRegisters = 16;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kRegisters = 16;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using Integer = std::int32_t;
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t Integers __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  using Integer = std::int64_t;
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int64_t Integers __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vec = typename VectorOf<T>::Vector;
template <class T>
using IntVec = typename VectorOf<T>::Integers;
/// Elements of a vector.
template <class T>
inline constexpr std::int64_t kLanes = kVectorBytes / static_cast<std::int64_t>(sizeof(T));

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> result;
  __builtin_memcpy(&result, from, sizeof result);
  return result;
}
template <class T>
inline void store(T* to, Vec<T> value) {
  __builtin_memcpy(to, &value, sizeof value);
}
/// The first `count` elements, zeros behind them.
template <class T>
inline Vec<T> load_first(const T* from, std::int64_t count) {
  Vec<T> result{};
  __builtin_memcpy(&result, from, static_cast<std::size_t>(count) * sizeof(T));
  return result;
}
template <class T>
inline void store_first(T* to, Vec<T> value, std::int64_t count) {
  __builtin_memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(T));
}
/// All lanes, or the first `count`.
template <class T>
inline Vec<T> load_up_to(const T* from, std::int64_t count) {
  return (count == kLanes<T>) ? load(from) : load_first(from, count);
}
template <class T>
inline void store_up_to(T* to, Vec<T> value, std::int64_t count) {
  if (count == kLanes<T>) {
    store(to, value);
  } else {
    store_first(to, value, count);
  }
}
template <class T>
inline Vec<T> splat(T value) {
  return value - Vec<T>{};
}
/// Lane numbers plus `from`.
template <class T>
inline IntVec<T> lane_numbers(std::int64_t from) {
  IntVec<T> result;
  for (std::int64_t lane = 0; lane < kLanes<T>; ++lane) {
    result[lane] = static_cast<typename VectorOf<T>::Integer>(from + lane);
  }
  return result;
}

/// Lane l gets lane l ^ kD.
template <class T, int kD>
inline Vec<T> swapped(Vec<T> v) {
  if constexpr (kLanes<T> == 16) {
    return __builtin_shufflevector(v, v, 0 ^ kD, 1 ^ kD, 2 ^ kD, 3 ^ kD, 4 ^ kD, 5 ^ kD, 6 ^ kD, 7 ^ kD,
                                   8 ^ kD, 9 ^ kD, 10 ^ kD, 11 ^ kD, 12 ^ kD, 13 ^ kD, 14 ^ kD, 15 ^ kD);
  } else if constexpr (kLanes<T> == 8) {
    return __builtin_shufflevector(v, v, 0 ^ kD, 1 ^ kD, 2 ^ kD, 3 ^ kD, 4 ^ kD, 5 ^ kD, 6 ^ kD, 7 ^ kD);
  } else if constexpr (kLanes<T> == 4) {
    return __builtin_shufflevector(v, v, 0 ^ kD, 1 ^ kD, 2 ^ kD, 3 ^ kD);
  } else {
    static_assert(kLanes<T> == 2);
    return __builtin_shufflevector(v, v, 0 ^ kD, 1 ^ kD);
  }
}

/// combine(...) of all lanes, in halves: lane l with l + lanes/2, and so on.
template <class T, int kDistance = static_cast<int>(kLanes<T> / 2), class Combine>
inline Vec<T> folded(Vec<T> value, const Combine& combine) {
  value = combine(value, swapped<T, kDistance>(value));
  if constexpr (kDistance > 1) {
    return folded<T, kDistance / 2>(value, combine);
  } else {
    return value;
  }
}

template <class T>
inline T sum_of(Vec<T> value) {
  return folded<T>(value, [](Vec<T> a, Vec<T> b) { return a + b; })[0];
}
/// The second where one is NaN.
template <class T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}
template <class T>
inline Vec<T> smaller(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#define CARAVAN_AVX512_BUILTINS  // GCC's; without them the same in more instructions
inline constexpr unsigned kAllLanes = 0xFFFFU;
inline constexpr int kCurrentRounding = 4;
template <>
inline Vec<float> larger<float>(Vec<float> a, Vec<float> b) {
  return __builtin_ia32_maxps512_mask(a, b, a, kAllLanes, kCurrentRounding);
}
template <>
inline Vec<float> smaller<float>(Vec<float> a, Vec<float> b) {
  return __builtin_ia32_minps512_mask(a, b, a, kAllLanes, kCurrentRounding);
}
#endif
template <class T>
inline T max_of(Vec<T> value) {
  return folded<T>(value, [](Vec<T> a, Vec<T> b) { return larger<T>(a, b); })[0];
}

// ---- exponentials

inline float exp_of(float x) {
  return __builtin_expf(x);
}
inline double exp_of(double x) {
  return __builtin_exp(x);
}
inline float log_of(float x) {
  return __builtin_logf(x);
}
inline double log_of(double x) {
  return __builtin_log(x);
}
inline float root_of(float x) {
  return __builtin_sqrtf(x);
}
inline double root_of(double x) {
  return __builtin_sqrt(x);
}

/// float64: the C library's, for accuracy.
inline Vec<double> exp_of(Vec<double> x) {
  for (std::int64_t lane = 0; lane < kLanes<double>; ++lane) {
    x[lane] = __builtin_exp(x[lane]);
  }
  return x;
}

inline Vec<double> exp_or_tiny(Vec<double> x) {
  return exp_of(x);
}

inline constexpr float kLowestExp = -87.3365447F;  // below it float32 results are denormal

/// float32, within 2 units in the last place: exp(x), or exp(kLowestExp) where that is more; infinity above
/// 88.73, NaN stays NaN.
#if defined(CARAVAN_AVX512_BUILTINS)
/// exp(x) = 2^(n/16) · exp(r), |r| ≤ ln(2)/32, ln(2) in two parts: sixteen powers in a register leave a
/// polynomial of half the length of the one below (Tang 1989).
inline Vec<float> exp_or_tiny(Vec<float> x) {
  constexpr float kHighest = 89.0F;    // overflows in the last step
  constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer in the low bits
  alignas(64) static constexpr float kPowers[16] = {
      1.0F,        1.04427378F, 1.09050773F, 1.13878863F, 1.18920712F, 1.24185781F, 1.29683955F, 1.35425555F,
      1.41421356F, 1.47682615F, 1.54221083F, 1.61049033F, 1.68179283F, 1.75625216F, 1.83400809F, 1.91520656F};
  const Vec<float> limited = smaller<float>(splat(kHighest), larger<float>(splat(kLowestExp), x));
  const Vec<float> shifted = limited * (16.0F * 1.44269504F) + kRound;
  const Vec<float> n = shifted - kRound;
  const Vec<float> r = (limited - n * (0.693359375F / 16.0F)) - n * (-2.12194440e-4F / 16.0F);
  const Vec<float> powers = load(kPowers);
  const Vec<float> power =  // 2^((n mod 16)/16)
      __builtin_ia32_permvarsf512_mask(powers, reinterpret_cast<IntVec<float>>(shifted), powers, kAllLanes);
  const Vec<float> p = (r * 1.66666667e-1F + 0.5F) * r + 1.0F;
  const Vec<float> y = p * (power * r) + power;
  return __builtin_ia32_scalefps512_mask(y, n * 0.0625F, y, kAllLanes, kCurrentRounding);  // · 2^floor(n/16)
}
#else
/// exp(x) = 2^n · exp(r), |r| ≤ ln(2)/2, ln(2) in two parts; polynomial after Cephes' expf.
inline Vec<float> exp_or_tiny(Vec<float> x) {
  constexpr float kHighest = 89.0F;    // overflows in the last step
  constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer in the low bits
  constexpr std::uint32_t kRoundBits = 0x4B400000U;
  typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  using Integers = IntVec<float>;
  using Floats = Vec<float>;
  const Vec<float> limited = smaller<float>(splat(kHighest), larger<float>(splat(kLowestExp), x));
  const Vec<float> shifted = limited * 1.44269504F + kRound;
  const Vec<float> n = shifted - kRound;
  const Vec<float> r = (limited - n * 0.693359375F) - n * -2.12194440e-4F;
  Vec<float> p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  // 2^n in two factors: n reaches 128, whose power is no float.
  const auto exponent = reinterpret_cast<Integers>(reinterpret_cast<Bits>(shifted) - kRoundBits);
  const Integers half = exponent >> 1;
  const Bits factor1 = (reinterpret_cast<Bits>(half) + 127U) << 23U;
  const Bits factor2 = (reinterpret_cast<Bits>(exponent - half) + 127U) << 23U;
  return p * reinterpret_cast<Floats>(factor1) * reinterpret_cast<Floats>(factor2);
}
#endif

/// float32 as exp_or_tiny, but 0 below kLowestExp: no denormal results.
inline Vec<float> exp_of(Vec<float> x) {
  const Vec<float> y = exp_or_tiny(x);
  return x < splat(kLowestExp) ? Vec<float>{} : y;
}

/// exp of a scalar without a call, which would save every vector register.
inline float inline_exp(float x) {
  return exp_of(splat(x))[0];
}
inline double inline_exp(double x) {
  return __builtin_exp(x);
}

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

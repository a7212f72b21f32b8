// Element types, their sizes and names. Storage types only: arithmetic belongs to kernels.
#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caravan {

/// bfloat16 storage: the upper half of an IEEE float32. Conversions round to nearest even.
struct BFloat16 {
  std::uint16_t bits = 0;
};

/// IEEE binary16 storage.
struct Float16 {
  std::uint16_t bits = 0;
};

enum class DType : std::uint8_t {
  kFloat32,
  kFloat64,
  kBFloat16,
  kFloat16,
  kComplex128,  // complex-step tests only
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUInt8,
  kBool,
};

/// Bytes of one element.
std::size_t dtype_bytes(DType dtype);
/// "float32", "bfloat16", ...
std::string_view dtype_name(DType dtype);
bool is_floating(DType dtype);

/// Of sums, statistics, weight gradients and optimizer state of values stored as `dtype`: float32 for 16-bit
/// types, else the type itself.
constexpr DType accumulation_dtype(DType dtype) {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16 ? DType::kFloat32 : dtype;
}

float to_float(BFloat16 value);
float to_float(Float16 value);
/// Exact.
inline double to_double(double value) {
  return value;
}
inline double to_double(float value) {
  return static_cast<double>(value);
}
inline double to_double(BFloat16 value) {
  return static_cast<double>(to_float(value));
}
inline double to_double(Float16 value) {
  return static_cast<double>(to_float(value));
}
BFloat16 to_bfloat16(float value);
Float16 to_float16(float value);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType kValue = DType::kFloat64;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType kValue = DType::kBFloat16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType kValue = DType::kFloat16;
};
template <>
struct DTypeOf<std::complex<double>> {
  static constexpr DType kValue = DType::kComplex128;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType kValue = DType::kInt64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType kValue = DType::kInt32;
};
template <>
struct DTypeOf<std::int16_t> {
  static constexpr DType kValue = DType::kInt16;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType kValue = DType::kInt8;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType kValue = DType::kUInt8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType kValue = DType::kBool;
};

}  // namespace caravan

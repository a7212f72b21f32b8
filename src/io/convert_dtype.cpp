#include "caravan/io/convert_dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "caravan/core/error.h"

namespace caravan {
namespace {

template <class T>
constexpr bool kIsSixteenBit = std::is_same_v<T, BFloat16> || std::is_same_v<T, Float16>;

/// double to float, rounded to odd: the last bit remembers that something was lost, so that rounding once
/// more to 16 bits gives what rounding in one step would (Boldo and Melquiond 2008).
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (!std::isfinite(nearest) || static_cast<double>(nearest) == value) {
    return nearest;
  }
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) {
    --bits;  // towards zero, then set the last bit
  }
  return std::bit_cast<float>(bits | 1U);
}

template <class To, class From>
To convert(From value) {
  if constexpr (kIsSixteenBit<From>) {
    return convert<To>(to_float(value));
  } else if constexpr (kIsSixteenBit<To>) {
    float single = 0.0F;
    if constexpr (std::is_same_v<From, double>) {
      single = round_to_odd(value);
    } else {
      single = value;
    }
    if constexpr (std::is_same_v<To, BFloat16>) {
      return to_bfloat16(single);
    } else {
      return to_float16(single);
    }
  } else {
    return static_cast<To>(value);
  }
}

template <class From, class To>
void convert_all(const std::byte* source, std::byte* destination, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    From from{};
    std::memcpy(&from, source + i * static_cast<std::int64_t>(sizeof(From)), sizeof(From));
    const To to = convert<To>(from);
    std::memcpy(destination + i * static_cast<std::int64_t>(sizeof(To)), &to, sizeof(To));
  }
}

// The two ways real checkpoints take, written so that the compiler makes vector code of them: the functions
// of core/dtype are called per element otherwise and cost more than the disk. As to_float and to_bfloat16
// there.

void bfloat16_to_float32(const std::byte* source, std::byte* destination, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t from = 0;
    std::memcpy(&from, source + 2 * i, 2);
    const std::uint32_t to = static_cast<std::uint32_t>(from) << 16U;
    std::memcpy(destination + 4 * i, &to, 4);
  }
}

void float32_to_bfloat16(const std::byte* source, std::byte* destination, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t from = 0;
    std::memcpy(&from, source + 4 * i, 4);
    const bool is_nan = (from & 0x7FFFFFFFU) > 0x7F800000U;
    const std::uint32_t rounded = (from + 0x7FFFU + ((from >> 16U) & 1U)) >> 16U;
    const auto to = static_cast<std::uint16_t>(is_nan ? (from >> 16U) | 0x0040U : rounded);
    std::memcpy(destination + 2 * i, &to, 2);
  }
}

bool is_real(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kBFloat16 ||
         dtype == DType::kFloat16;
}

template <class From>
void convert_from(const std::byte* source, std::byte* destination, DType to, std::int64_t count) {
  switch (to) {
    case DType::kFloat32:
      return convert_all<From, float>(source, destination, count);
    case DType::kFloat64:
      return convert_all<From, double>(source, destination, count);
    case DType::kBFloat16:
      return convert_all<From, BFloat16>(source, destination, count);
    default:
      return convert_all<From, Float16>(source, destination, count);
  }
}

}  // namespace

bool can_convert(DType from, DType to) {
  return from == to || (is_real(from) && is_real(to));
}

void convert_elements(const std::byte* source, DType from, std::byte* destination, DType to,
                      std::int64_t count) {
  CARAVAN_CHECK(can_convert(from, to), "no conversion from {} to {}", dtype_name(from), dtype_name(to));
  if (from == to) {
    std::memcpy(destination, source, static_cast<std::size_t>(count) * dtype_bytes(from));
    return;
  }
  if (from == DType::kBFloat16 && to == DType::kFloat32) {
    return bfloat16_to_float32(source, destination, count);
  }
  if (from == DType::kFloat32 && to == DType::kBFloat16) {
    return float32_to_bfloat16(source, destination, count);
  }
  switch (from) {
    case DType::kFloat32:
      return convert_from<float>(source, destination, to, count);
    case DType::kFloat64:
      return convert_from<double>(source, destination, to, count);
    case DType::kBFloat16:
      return convert_from<BFloat16>(source, destination, to, count);
    default:
      return convert_from<Float16>(source, destination, to, count);
  }
}

}  // namespace caravan

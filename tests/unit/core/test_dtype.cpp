#include "caravan/core/dtype.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "caravan/core/counter_rng.h"

using namespace caravan;

namespace {

/// IEEE binary16 by its definition: sign, 5 bits of exponent with bias 15, 10 of mantissa.
double half_by_definition(std::uint16_t bits) {
  const int exponent = (bits >> 10U) & 0x1F;
  const double mantissa = bits & 0x3FF;
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  if (exponent == 0x1F) {
    return mantissa == 0.0 ? sign * std::numeric_limits<double>::infinity()
                           : std::numeric_limits<double>::quiet_NaN();
  }
  return sign *
         (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1.0 + mantissa / 1024.0, exponent - 15));
}

/// The nearest number of a format with `digits` binary digits, smallest exponent and largest number; ties to
/// the even one. nearbyint rounds so by default.
double nearest(double value, int digits, int least_exponent, double largest) {
  if (std::isnan(value) || std::isinf(value) || value == 0.0) {
    return value;
  }
  const int exponent = std::max(std::ilogb(value), least_exponent);
  const double step = std::ldexp(1.0, exponent - (digits - 1));
  const double rounded = std::nearbyint(value / step) * step;
  return std::abs(rounded) > largest ? std::copysign(std::numeric_limits<double>::infinity(), value)
                                     : rounded;
}
double nearest_half(float value) {
  return nearest(static_cast<double>(value), 11, -14, 65504.0);
}
double nearest_brain(float value) {
  return nearest(static_cast<double>(value), 8, -126, 0x1.FEp127);
}

/// The same number, or NaN both; −0 is not 0.
bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

/// Both conversions of one float.
bool rounds_to_nearest(float value) {
  return same(static_cast<double>(to_float(to_float16(value))), nearest_half(value)) &&
         same(static_cast<double>(to_float(to_bfloat16(value))), nearest_brain(value));
}

}  // namespace

TEST_CASE("every finite bfloat16 and float16 survives the way through float", "[core][dtype]") {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    const float from_brain = to_float(brain);
    if (!std::isnan(from_brain)) {
      REQUIRE(to_bfloat16(from_brain).bits == brain.bits);
    } else {
      REQUIRE(std::isnan(to_float(to_bfloat16(from_brain))));
    }
    const Float16 half{static_cast<std::uint16_t>(bits)};
    const float from_half = to_float(half);
    if (!std::isnan(from_half)) {
      REQUIRE(to_float16(from_half).bits == half.bits);
    } else {
      REQUIRE(std::isnan(to_float(to_float16(from_half))));
    }
  }
}

TEST_CASE("conversions to 16 bits round to nearest, ties to even", "[core][dtype]") {
  CHECK(to_bfloat16(1.0F).bits == 0x3F80);
  CHECK(to_bfloat16(1.00390625F).bits == 0x3F80);  // half way between 1 and the next: even
  CHECK(to_bfloat16(1.01171875F).bits == 0x3F82);  // half way, odd below: up
  CHECK(to_float16(1.0F).bits == 0x3C00);
  CHECK(to_float16(1.00048828125F).bits == 0x3C00);
  CHECK(to_float16(65519.0F).bits == 0x7BFF);
  CHECK(to_float16(65520.0F).bits == 0x7C00);
  CHECK(to_float16(0x1p-24F).bits == 0x0001);
  CHECK(to_float16(0x1p-25F).bits == 0x0000);
  CHECK(to_float16(-2.0F).bits == 0xC000);
}

TEST_CASE("all float16 have the value that IEEE 754 gives them", "[core][dtype]") {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    REQUIRE(same(static_cast<double>(to_float(Float16{half})), half_by_definition(half)));
  }
}

TEST_CASE("floats round to the nearest 16-bit number, whatever they are", "[core][dtype]") {
  const CounterRng rng(1, 0);
  for (std::uint64_t i = 0; i < 1'000'000; ++i) {  // bits at random: every exponent, NaN and subnormals too
    const auto bits = static_cast<std::uint32_t>(rng.bits(i));
    INFO("bits " << bits);
    REQUIRE(rounds_to_nearest(std::bit_cast<float>(bits)));
  }
  // Around the middle between any two neighbours, where rounding turns.
  for (std::uint32_t bits = 0; bits < 0x7C00U; ++bits) {
    const double low = half_by_definition(static_cast<std::uint16_t>(bits));
    const double high = bits == 0x7BFFU ? 65536.0 : half_by_definition(static_cast<std::uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    for (const float value : {std::nextafter(middle, 0.0F), middle, std::nextafter(middle, 1e30F)}) {
      INFO(value);
      REQUIRE(rounds_to_nearest(value));
      REQUIRE(rounds_to_nearest(-value));
    }
  }
}

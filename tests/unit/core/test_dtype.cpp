#include "caravan/core/dtype.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>

using namespace caravan;

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

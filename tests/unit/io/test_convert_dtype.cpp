#include "caravan/io/convert_dtype.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "caravan/core/error.h"

using namespace caravan;

namespace {

template <class To, class From>
To convert_one(From value) {
  To result{};
  convert_elements(reinterpret_cast<const std::byte*>(&value), DTypeOf<From>::kValue,
                   reinterpret_cast<std::byte*>(&result), DTypeOf<To>::kValue, 1);
  return result;
}

}  // namespace

TEST_CASE("16-bit values survive the way through float64", "[io][convert_dtype]") {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    if (!std::isnan(to_float(brain))) {
      REQUIRE(convert_one<BFloat16>(convert_one<double>(brain)).bits == brain.bits);
    }
    const Float16 half{static_cast<std::uint16_t>(bits)};
    if (!std::isnan(to_float(half))) {
      REQUIRE(convert_one<Float16>(convert_one<double>(half)).bits == half.bits);
    }
  }
}

TEST_CASE("whole blocks of bfloat16 and float32 convert like single values", "[io][convert_dtype]") {
  constexpr std::size_t kCount = 0x10000;
  std::vector<BFloat16> brains(kCount);
  std::vector<float> singles(kCount + 1);
  for (std::size_t i = 0; i < kCount; ++i) {
    brains[i].bits = static_cast<std::uint16_t>(i);
  }
  auto* const target = reinterpret_cast<std::byte*>(singles.data()) + 1;  // no alignment is promised
  convert_elements(reinterpret_cast<const std::byte*>(brains.data()), DType::kBFloat16, target,
                   DType::kFloat32, kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    float single = 0.0F;
    std::memcpy(&single, target + 4 * i, 4);
    REQUIRE(std::bit_cast<std::uint32_t>(single) == std::bit_cast<std::uint32_t>(to_float(brains[i])));
  }
  // Every upper half with lower halves on both sides of, and at, the half-way point.
  for (const std::uint32_t low : {0x0000U, 0x0001U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) {
    for (std::size_t i = 0; i < kCount; ++i) {
      singles[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i) << 16U | low);
    }
    convert_elements(reinterpret_cast<const std::byte*>(singles.data()), DType::kFloat32,
                     reinterpret_cast<std::byte*>(brains.data()), DType::kBFloat16, kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      REQUIRE(brains[i].bits == to_bfloat16(singles[i]).bits);
    }
  }
}

TEST_CASE("float64 to 16 bits rounds once", "[io][convert_dtype]") {
  // A hair above the half-way point between two bfloat16: rounding to float32 first would land on it and go
  // to even, down.
  CHECK(convert_one<BFloat16>(1.00390625 + 0x1p-40).bits == 0x3F81);
  CHECK(convert_one<BFloat16>(1.00390625).bits == 0x3F80);
  CHECK(convert_one<BFloat16>(-1.00390625 - 0x1p-40).bits == 0xBF81);
  CHECK(convert_one<BFloat16>(1.01171875 - 0x1p-40).bits == 0x3F81);
  CHECK(convert_one<Float16>(1.00048828125 + 0x1p-40).bits == 0x3C01);
  CHECK(convert_one<Float16>(0x1p-25 + 0x1p-60).bits == 0x0001);
  CHECK(convert_one<Float16>(-1e-300).bits == 0x8000);
  CHECK(convert_one<BFloat16>(1e300).bits == 0x7F80);
  CHECK(std::isnan(to_float(convert_one<BFloat16>(std::numeric_limits<double>::quiet_NaN()))));
}

TEST_CASE("float32 to float64 is exact and back again the same", "[io][convert_dtype]") {
  const std::vector<float> values = {0.1F, -0.0F, 1e-45F, 3.4e38F, std::numeric_limits<float>::infinity()};
  for (const float value : values) {
    CHECK(convert_one<double>(value) == static_cast<double>(value));
    CHECK(std::bit_cast<std::uint32_t>(convert_one<float>(convert_one<double>(value))) ==
          std::bit_cast<std::uint32_t>(value));
  }
}

TEST_CASE("integers are copied and never converted", "[io][convert_dtype]") {
  CHECK(convert_one<std::int64_t>(std::int64_t{-5}) == -5);
  CHECK(can_convert(DType::kInt8, DType::kInt8));
  CHECK_FALSE(can_convert(DType::kInt8, DType::kFloat32));
  CHECK_THROWS_AS((convert_one<float>(std::int32_t{1})), InternalError);
}

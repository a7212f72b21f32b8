// LABELS cuda-build
// core's 16-bit conversions, which the host runner's kernels use, and CUDA's, which the GPU's use, have the
// same bits. CUDA's headers bring the conversions for the host too.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/core/counter_rng.h"
#include "caravan/core/dtype.h"

using namespace caravan;

namespace {

/// NaN stays NaN; which one is left to either side.
bool agree(float value) {
  const std::uint16_t half_bits = to_float16(value).bits;
  const std::uint16_t brain = to_bfloat16(value).bits;
  if (std::isnan(value)) {
    return std::isnan(__half2float(__ushort_as_half(half_bits))) &&
           std::isnan(__half2float(__float2half_rn(value)));
  }
  return half_bits == __half_as_ushort(__float2half_rn(value)) &&
         brain == __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

}  // namespace

TEST_CASE("every float16 becomes the same float", "[cuda]") {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto half_bits = static_cast<std::uint16_t>(bits);
    const float ours = to_float(Float16{half_bits});
    const float theirs = __half2float(__ushort_as_half(half_bits));
    REQUIRE((std::bit_cast<std::uint32_t>(ours) == std::bit_cast<std::uint32_t>(theirs) ||
             (std::isnan(ours) && std::isnan(theirs))));
  }
}

TEST_CASE("floats become the same 16-bit numbers", "[cuda]") {
  const CounterRng rng(2, 0);
  for (std::uint64_t i = 0; i < 4'000'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(rng.bits(i));
    INFO("bits " << bits);
    REQUIRE(agree(std::bit_cast<float>(bits)));
  }
  // All floats whose lower 12 bits are about the middle between two float16, where rounding turns.
  for (std::uint32_t upper = 0; upper < 0x100000U; ++upper) {
    for (const std::uint32_t lower : {0U, 1U, 0xFFFU}) {
      INFO("bits " << (upper << 12U | lower));
      REQUIRE(agree(std::bit_cast<float>(upper << 12U | lower)));
    }
  }
}

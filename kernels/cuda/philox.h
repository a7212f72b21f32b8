// The counter generator of core/counter_rng.h on the device, bit for bit (Salmon et al. 2011: Philox4x32-10).
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"

namespace caravan::cuda {

struct PhiloxBlock {
  std::uint32_t words[4];
};

/// The block of `index` in `stream` under `seed`.
__device__ inline PhiloxBlock philox_block(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53U;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57U;
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32U);
  PhiloxBlock block{{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32U),
                     static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)}};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * block.words[0];
    const std::uint64_t product1 = kMultiplier1 * block.words[2];
    block = {{static_cast<std::uint32_t>(product1 >> 32U) ^ block.words[1] ^ key0,
              static_cast<std::uint32_t>(product1),
              static_cast<std::uint32_t>(product0 >> 32U) ^ block.words[3] ^ key1,
              static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return block;
}

/// CounterRng(seed, stream).normal(index), to the accuracy of the device's log and cos in double.
__device__ inline double philox_normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  constexpr double kTwoToMinus53 = 0x1p-53;
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  const PhiloxBlock block = philox_block(seed, stream, index);
  const auto joined = [&](int low) {
    const std::uint64_t bits = static_cast<std::uint64_t>(block.words[low]) |
                               (static_cast<std::uint64_t>(block.words[low + 1]) << 32U);
    return static_cast<double>(bits >> 11U) * kTwoToMinus53;
  };
  return sqrt(-2.0 * log(1.0 - joined(0))) * cos(kTwoPi * joined(2));
}

}  // namespace caravan::cuda

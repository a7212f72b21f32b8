// Counter-based random numbers: a value is a pure function of (seed, stream, index), so every layout of ranks
// draws the same numbers for the same global element (Salmon et al. 2011, "Parallel random numbers: as easy
// as 1, 2, 3": Philox4x32-10).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace caravan {

/// One Philox4x32-10 block.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// Stable 64-bit hash of a name (FNV-1a), to turn parameter names and purposes into streams.
std::uint64_t stream_id(std::string_view name);

class CounterRng {
 public:
  CounterRng(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}

  /// 64 uniform bits for `index`.
  std::uint64_t bits(std::uint64_t index) const;
  /// Uniform in [0, 1), 53 bits.
  double uniform(std::uint64_t index) const;
  /// Standard normal (Box-Muller on the block of `index`).
  double normal(std::uint64_t index) const;
  /// Uniform integer in [0, bound), unbiased enough for shuffling (bound < 2^53).
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace caravan

#include "caravan/core/counter_rng.h"

#include <cmath>
#include <numbers>

namespace caravan {
namespace {

constexpr double kTwoToMinus53 = 0x1p-53;

double unit_interval(std::uint64_t bits) {
  return static_cast<double>(bits >> 11U) * kTwoToMinus53;
}

std::uint64_t join(std::uint32_t low, std::uint32_t high) {
  return static_cast<std::uint64_t>(low) | (static_cast<std::uint64_t>(high) << 32U);
}

std::array<std::uint32_t, 4> block(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32U),
                     static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)},
                    {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32U)});
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53U;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57U;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32U) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32U) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

std::uint64_t stream_id(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  }
  return hash;
}

std::uint64_t CounterRng::bits(std::uint64_t index) const {
  const auto words = block(seed_, stream_, index);
  return join(words[0], words[1]);
}

double CounterRng::uniform(std::uint64_t index) const {
  return unit_interval(bits(index));
}

double CounterRng::normal(std::uint64_t index) const {
  const auto words = block(seed_, stream_, index);
  const double radius_uniform = 1.0 - unit_interval(join(words[0], words[1]));  // (0, 1]: log is finite
  const double angle_uniform = unit_interval(join(words[2], words[3]));
  return std::sqrt(-2.0 * std::log(radius_uniform)) * std::cos(2.0 * std::numbers::pi * angle_uniform);
}

std::uint64_t CounterRng::below(std::uint64_t index, std::uint64_t bound) const {
  return static_cast<std::uint64_t>(uniform(index) * static_cast<double>(bound));
}

}  // namespace caravan

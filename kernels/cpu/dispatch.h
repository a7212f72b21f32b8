// Chooses the instruction set of the inner loops at run time.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/cpu/simd_table.h"

namespace caravan {

enum class SimdLevel : std::uint8_t { kBaseline, kAvx2, kAvx512 };

/// "baseline", "avx2", "avx512"
std::string_view simd_level_name(SimdLevel level);
/// Levels this build contains and this machine executes, lowest first; never empty.
std::vector<SimdLevel> available_simd_levels();
/// The highest available level, or the one the environment variable CARAVAN_SIMD names. Throws ConfigError
/// when that one is unknown or not available.
SimdLevel preferred_simd_level();
/// The functions of an available level.
const simd::SimdTable& simd_table(SimdLevel level);

namespace simd {

template <class T>
const SimdOps<T>& ops_of(const SimdTable& table);
template <>
inline const SimdOps<float>& ops_of<float>(const SimdTable& table) {
  return table.float32;
}
template <>
inline const SimdOps<double>& ops_of<double>(const SimdTable& table) {
  return table.float64;
}

}  // namespace simd
}  // namespace caravan

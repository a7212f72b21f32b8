#include "kernels/cpu/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "caravan/core/error.h"

namespace caravan {
namespace simd {

namespace baseline {
const SimdTable& table();
}
#ifdef CARAVAN_HAS_SIMD_AVX2
namespace avx2 {
const SimdTable& table();
}
#endif
#ifdef CARAVAN_HAS_SIMD_AVX512
namespace avx512 {
const SimdTable& table();
}
#endif

}  // namespace simd

std::string_view simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kBaseline:
      return "baseline";
    case SimdLevel::kAvx2:
      return "avx2";
    case SimdLevel::kAvx512:
      return "avx512";
  }
  fail<InternalError>("unknown instruction set {}", static_cast<int>(level));
}

std::vector<SimdLevel> available_simd_levels() {
  std::vector<SimdLevel> levels = {SimdLevel::kBaseline};
#ifdef CARAVAN_HAS_SIMD_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    levels.push_back(SimdLevel::kAvx2);
  }
#endif
#ifdef CARAVAN_HAS_SIMD_AVX512
  if (levels.back() == SimdLevel::kAvx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    levels.push_back(SimdLevel::kAvx512);
  }
#endif
  return levels;
}

SimdLevel preferred_simd_level() {
  const std::vector<SimdLevel> levels = available_simd_levels();
  const char* wanted = std::getenv("CARAVAN_SIMD");
  if (wanted == nullptr || *wanted == '\0') {
    return levels.back();
  }
  const auto found = std::find_if(levels.begin(), levels.end(),
                                  [&](SimdLevel level) { return simd_level_name(level) == wanted; });
  if (found == levels.end()) {
    std::string names;
    for (const SimdLevel level : levels) {
      names += names.empty() ? "" : ", ";
      names += simd_level_name(level);
    }
    fail<ConfigError>("CARAVAN_SIMD is \"{}\"; this build on this machine offers: {}", wanted, names);
  }
  return *found;
}

const simd::SimdTable& simd_table(SimdLevel level) {
#ifdef CARAVAN_HAS_SIMD_AVX2
  if (level == SimdLevel::kAvx2) {
    return simd::avx2::table();
  }
#endif
#ifdef CARAVAN_HAS_SIMD_AVX512
  if (level == SimdLevel::kAvx512) {
    return simd::avx512::table();
  }
#endif
  CARAVAN_CHECK(level == SimdLevel::kBaseline, "{} is not in this build", simd_level_name(level));
  return simd::baseline::table();
}

}  // namespace caravan

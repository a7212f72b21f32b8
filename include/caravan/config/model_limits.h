// Largest sizes a model may have: far above any, low enough that no product of sizes overflows int64
// (3·L·F·D < 2^61). One list for shapes from presets and from files.
#pragma once

#include <cstdint>

namespace caravan {

inline constexpr std::int64_t kMaxVocab = std::int64_t{1} << 31U;  // positions too
inline constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20U;  // D, E, H and H·E
inline constexpr std::int64_t kMaxIntermediate = std::int64_t{1} << 24U;
inline constexpr std::int64_t kMaxLayers = std::int64_t{1} << 14U;

}  // namespace caravan

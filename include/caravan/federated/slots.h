// Which slice of the model a rank trains in which round, and which numbers of slices a model can be cut into.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

enum class Swapping : std::uint8_t { kOff, kOn };

/// The slot of `rank` in `round` (rounds count from 1; 0 is before training). Without swapping a rank keeps
/// slot `rank`; with it every trainer moves to the next slot before every even round: (rank + ⌊round / 2⌋)
/// mod N.
std::int64_t slot_of(std::int64_t rank, std::int64_t round, std::int64_t ranks, Swapping swapping);

/// Slots of all ranks, by rank.
std::vector<std::int64_t> slots_of_round(std::int64_t round, std::int64_t ranks, Swapping swapping);

/// Coordinates of a slot for ShardSpec.
Coordinates slot_coordinates(std::int64_t slot, std::int64_t ranks);

/// Every N that divides n_heads, n_kv_heads and intermediate_size, ascending.
std::vector<std::int64_t> allowed_world_sizes(const ModelConfig& config);

/// Throws ConfigError naming the sizes that do not divide and the allowed numbers.
void check_world_size(const ModelConfig& config, std::int64_t ranks);

}  // namespace caravan

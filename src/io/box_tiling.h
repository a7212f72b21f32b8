// Whether boxes fill a box, each element once: what the pieces of a tensor in a checkpoint must do.
#pragma once

#include <span>
#include <string>

#include "caravan/core/shape.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

/// "[0:4, 8:16]"; "[]" for rank 0.
std::string region_text(const Region& region);

/// Empty when the boxes, none empty and each inside `shape`, cover every element exactly once; else what is
/// wrong, in words. n log n for tensors of up to two dims; for more dims at most 4096 boxes are compared pair
/// by pair, more are refused.
std::string tiling_problem(const Shape& shape, std::span<const Region* const> boxes);

}  // namespace caravan

// The global gradient norm and clipping by it (Pascanu et al. 2013).
#pragma once

#include <optional>

#include "caravan/model/parameter.h"

namespace caravan {

/// Σ g² over the trainable shards that are first copies: summed over ranks, every element counts once.
double sum_squares_of_gradients(const Context& ctx, const std::vector<ParameterShard>& shards);

/// min(1, clip_norm / norm); 1 without a limit.
double clip_factor(double norm, std::optional<double> clip_norm);

}  // namespace caravan

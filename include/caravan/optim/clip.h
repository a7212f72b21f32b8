// The global gradient norm and clipping by it (Pascanu et al. 2013).
#pragma once

#include <optional>

#include "caravan/model/parameter.h"

namespace caravan {

/// sqrt(Σ g²) over every trainable parameter's local gradient.
double global_norm(const Context& ctx, const ParameterSet& parameters);

/// min(1, clip_norm / norm); 1 without a limit.
double clip_factor(double norm, std::optional<double> clip_norm);

}  // namespace caravan

// Dropout, checked; contract in backend/op_args.h. And where the masks of a step come from.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

/// Throws InternalError when shapes do not fit, the rate is not in [0, 1), or the tokens' rows are missing.
void dropout(const Context& ctx, const DropoutArgs& args);

/// The key of the masks of step `step` (from 1): a pure function, so nothing about masks is stored. `learner`
/// tells apart those that train on their own with one seed (the ranks of a federated run); 0 where all ranks
/// train one model. Independent of everything else that is drawn from the seed.
std::uint64_t dropout_key(std::uint64_t seed, std::int64_t learner, std::int64_t step);

}  // namespace caravan

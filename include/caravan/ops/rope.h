// Rotary position embedding: the rotation (checked; contract in backend/op_args.h) and its tables.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void rope(const Context& ctx, const RopeArgs& args);

}  // namespace caravan

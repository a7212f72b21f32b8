// AdamW and the sum of squares behind the gradient norm, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void adamw(const Context& ctx, const AdamwArgs& args);
void sum_squares(const Context& ctx, const SumSquaresArgs& args);

}  // namespace caravan

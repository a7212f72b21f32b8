// A step's sums, the decision on its update, and AdamW, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void sum(const Context& ctx, const SumArgs& args);
void sum_squares(const Context& ctx, const SumSquaresArgs& args);
void prepare_update(const Context& ctx, const PrepareUpdateArgs& args);
void adamw(const Context& ctx, const AdamwArgs& args);

}  // namespace caravan

// Adding, scaling, zeroing, copying, and layout-free random numbers, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void add(const Context& ctx, const AddArgs& args);
void scale(const Context& ctx, const ScaleArgs& args);
void zero(const Context& ctx, const ZeroArgs& args);
void copy(const Context& ctx, const CopyArgs& args);
void random_normal(const Context& ctx, const RandomNormalArgs& args);

}  // namespace caravan

// SwiGLU, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void swiglu_forward(const Context& ctx, const SwigluForwardArgs& args);
void swiglu_backward(const Context& ctx, const SwigluBackwardArgs& args);

}  // namespace caravan

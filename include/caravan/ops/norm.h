// RMSNorm with the residual add fused in, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void rmsnorm_forward(const Context& ctx, const RmsNormForwardArgs& args);
void rmsnorm_backward(const Context& ctx, const RmsNormBackwardArgs& args);

}  // namespace caravan

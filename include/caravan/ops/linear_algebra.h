// Matrix products, checked; the contracts are in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void matmul_nt(const Context& ctx, const MatmulNtArgs& args);
void matmul_nn(const Context& ctx, const MatmulNnArgs& args);
void matmul_tn(const Context& ctx, const MatmulTnArgs& args);

}  // namespace caravan

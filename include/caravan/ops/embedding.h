// Token embedding, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void embedding_forward(const Context& ctx, const EmbeddingForwardArgs& args);
void embedding_backward(const Context& ctx, const EmbeddingBackwardArgs& args);

}  // namespace caravan

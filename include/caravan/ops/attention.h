// Grouped-query attention, checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void attention_forward(const Context& ctx, const AttentionForwardArgs& args);
void attention_backward(const Context& ctx, const AttentionBackwardArgs& args);
void attention_merge(const Context& ctx, const AttentionMergeArgs& args);

}  // namespace caravan

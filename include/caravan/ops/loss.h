// Cross-entropy over chunks of logits: at once where the vocabulary is whole on this rank, and in three
// steps, so that ranks may combine between the first two; checked; contracts in backend/op_args.h.
#pragma once

#include "caravan/backend/context.h"

namespace caravan {

void cross_entropy(const Context& ctx, const CrossEntropyArgs& args);
void cross_entropy_stats(const Context& ctx, const CrossEntropyStatsArgs& args);
void cross_entropy_rescale(const Context& ctx, const CrossEntropyRescaleArgs& args);
void cross_entropy_loss(const Context& ctx, const CrossEntropyLossArgs& args);
void cross_entropy_backward(const Context& ctx, const CrossEntropyBackwardArgs& args);

}  // namespace caravan

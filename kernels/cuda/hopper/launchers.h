// Attention for GPUs of compute capability 9.0 (Hopper): a second implementation of the launchers of
// attention.cu. docs/notes/hopper-kernels.md says what it needs, what has been tested and what has not.
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda::hopper {

/// Whether the kernels can compute this: bfloat16, heads of 64 or 128, scale > 0, views that begin at a
/// multiple of 16 bytes, and something to compute. They do not ask what GPU there is.
bool takes(const AttentionForwardArgs& args);
bool takes(const AttentionBackwardArgs& args);

/// Of problems they take; contracts and workspace as in launchers.h.
void attention_forward(const AttentionForwardArgs& args, StreamHandle stream);
void attention_backward(const AttentionBackwardArgs& args, const Workspace& workspace, StreamHandle stream);

/// The forward pass without overlap of products and softmax in a warpgroup: for finding out which of the two
/// is wrong, should one be.
void attention_forward_plain(const AttentionForwardArgs& args, StreamHandle stream);

/// The two parts of the backward pass after delta [H, B·Sq].
void attention_dq(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream);
void attention_dkdv(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream);

}  // namespace caravan::cuda::hopper

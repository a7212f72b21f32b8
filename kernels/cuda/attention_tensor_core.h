// Attention on tensor cores (mma.sync, sm_80 and later): bfloat16, heads of 64 or 128. Called by the
// launchers of attention.cu for the problems that qualify; docs/notes/cuda-attention.md says how it works.
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {

/// True for bfloat16 views that begin at multiples of 16 bytes, heads of 64 or 128, and a scale above 0 (the
/// largest product has to be the largest score), where a block may have the shared memory.
bool runs_on_tensor_cores(const AttentionForwardArgs& args);
bool runs_on_tensor_cores(const AttentionBackwardArgs& args);

/// Contracts as in launchers.h, for problems that run on tensor cores and have a query (and in the backward
/// pass a key).
void attention_forward_tensor_core(const AttentionForwardArgs& args, StreamHandle stream);
std::int64_t attention_backward_tensor_core_workspace_bytes(const AttentionShape& shape);
void attention_backward_tensor_core(const AttentionBackwardArgs& args, const Workspace& workspace,
                                    StreamHandle stream);

}  // namespace caravan::cuda

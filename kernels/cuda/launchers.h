// The hand-written CUDA kernels, one launcher per op of the backend's table. Contracts (shapes, what is
// accumulated, what may overlap) are those of backend/op_args.h with these differences:
//  - T, the storage type of activations, weights and their gradients, is float32, bfloat16 or float16;
//  arithmetic and sums are
//    in float32. Statistics (rstd, lse, row_max, row_sum, target_logit, losses) and rotary tables are float32
//    always.
//  - Weight gradients (dweight) are T or float32.
//  - Pointers in arguments are device memory, StepScalars and UpdateState included. Nothing is checked here
//  that needs a look at device
//    memory: ids and positions must be rows of their tables.
//  - Scratch memory belongs to the caller, is aligned to 16 bytes and free again when the stream has passed
//  the op;
//    *_workspace_bytes says how much an op needs.
// Results do not depend on the schedule of blocks: no float atomics. Launchers throw DeviceError when a
// launch fails.
#pragma once

#include <cstdint>

#include "caravan/backend/op_args.h"

struct CUstream_st;  // CUDA's stream, without CUDA's headers

namespace caravan::cuda {

using StreamHandle = CUstream_st*;

struct Workspace {
  void* data = nullptr;
  std::int64_t bytes = 0;
};

// ---- norm.cu, norm_backward.cu

void rmsnorm_forward(const RmsNormForwardArgs& args, StreamHandle stream);
std::int64_t rmsnorm_backward_workspace_bytes(const RmsNormBackwardArgs& args);
/// dweight is summed over parts of the rows that depend on the number of rows alone, then over parts in their
/// order.
void rmsnorm_backward(const RmsNormBackwardArgs& args, const Workspace& workspace, StreamHandle stream);

// ---- rope.cu

void rope(const RopeArgs& args, StreamHandle stream);

// ---- activation.cu

void swiglu_forward(const SwigluForwardArgs& args, StreamHandle stream);
void swiglu_backward(const SwigluBackwardArgs& args, StreamHandle stream);

// ---- embedding.cu

void embedding_forward(const EmbeddingForwardArgs& args, StreamHandle stream);
std::int64_t embedding_backward_workspace_bytes(const EmbeddingBackwardArgs& args);
/// Sorts the tokens by row, keeping their order, and adds each row's gradients in float32 in the order of t.
void embedding_backward(const EmbeddingBackwardArgs& args, const Workspace& workspace, StreamHandle stream);

// ---- loss.cu

void cross_entropy_stats(const CrossEntropyStatsArgs& args, StreamHandle stream);
void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, StreamHandle stream);
void cross_entropy_loss(const CrossEntropyLossArgs& args, StreamHandle stream);
void cross_entropy_backward(const CrossEntropyBackwardArgs& args, StreamHandle stream);

/// One pass over a row of logits for its maximum and sum together, and one that turns it into the gradient in
/// place.
void cross_entropy(const CrossEntropyArgs& args, StreamHandle stream);

// ---- attention.cu, attention_tensor_core.cu, attention_heads.cu

/// head_dim up to 256. bfloat16 views that begin at multiples of 16 bytes and have heads of 64 or 128 run on
/// tensor cores. A view with gaps between its rows is refused (InternalError).
void attention_forward(const AttentionForwardArgs& args, StreamHandle stream);
std::int64_t attention_backward_workspace_bytes(const AttentionShape& shape);
/// No sum depends on the order of blocks: dq and (dk, dv) are two kernels.
void attention_backward(const AttentionBackwardArgs& args, const Workspace& workspace, StreamHandle stream);
void attention_merge(const AttentionMergeArgs& args, StreamHandle stream);

// ---- elementwise.cu

void add(const AddArgs& args, StreamHandle stream);
void scale(const ScaleArgs& args, StreamHandle stream);
/// float32, bfloat16 and float16 in any combination, int32 to int32; any strides.
void copy(const CopyArgs& args, StreamHandle stream);
void random_normal(const RandomNormalArgs& args, StreamHandle stream);

// ---- dropout.cu

void dropout(const DropoutArgs& args, StreamHandle stream);

// ---- transpose.cu

/// to = fromᵀ, both contiguous and not overlapping, of one dtype whose elements have 2 or 4 bytes.
struct TransposeArgs {
  TensorView from;  // [R, C]
  TensorView to;    // [C, R]
};
void transpose(const TransposeArgs& args, StreamHandle stream);

// ---- optimizer.cu

/// m, v and master are float32, param is T and grad T or float32.
void adamw(const AdamwArgs& args, StreamHandle stream);

/// Of sum and sum_squares.
std::int64_t sum_workspace_bytes(const TensorView& x);
/// Sums in an order that depends on the size alone.
void sum(const SumArgs& args, const Workspace& workspace, StreamHandle stream);
void sum_squares(const SumSquaresArgs& args, const Workspace& workspace, StreamHandle stream);

// ---- update_state.cu

void prepare_update(const PrepareUpdateArgs& args, StreamHandle stream);

}  // namespace caravan::cuda

// The kernels of a layer at the shapes of a real model: one launch of each, and the bytes or operations it is
// worth.
#pragma once

#include <cmath>
#include <vector>

#include "benchmarks/cuda/kernel_case.h"
#include "caravan/config/model_config.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/attention_tensor_core.h"
#include "kernels/cuda/hopper/launchers.h"

namespace caravan::benchmark {

/// Sizes of one micro-batch.
struct BatchShape {
  std::int64_t tokens = 16384;
  std::int64_t seq_len = 1024;      // of attention; divides tokens
  std::int64_t logits_rows = 4096;  // of a chunk of the head
};

// Values are bfloat16 (2 bytes), gradients of weights and optimizer state float32.
inline constexpr DType kValue = DType::kBFloat16;
inline constexpr DType kExact = DType::kFloat32;

inline std::vector<CaseMaker> norm_cases(const ModelConfig& model, const BatchShape& batch) {
  const Shape shape{batch.tokens, model.hidden_size};
  const Shape width{model.hidden_size};
  const Shape rows{batch.tokens};
  return {[=](TensorSource& from) {
            const RmsNormForwardArgs args{.x = from.random(kValue, shape),
                                          .delta = from.random(kValue, shape),
                                          .sum = from.random(kValue, shape),
                                          .weight = from.random(kValue, width),
                                          .eps = 1e-5,
                                          .y = from.random(kValue, shape),
                                          .rstd = from.random(kExact, rows)};
            return KernelCase{
                .name = "rmsnorm_forward",
                .shape = shape.str(),
                .bytes = 4 * 2 * shape.numel(),
                .launch = [=](cuda::StreamHandle stream) { cuda::rmsnorm_forward(args, stream); },
                .count = [=](Backend& table, Stream& s) { table.rmsnorm_forward(args, s); }};
          },
          [=](TensorSource& from) {
            const RmsNormBackwardArgs args{.dy = from.random(kValue, shape),
                                           .x = from.random(kValue, shape),
                                           .weight = from.random(kValue, width),
                                           .rstd = from.random(kExact, rows),
                                           .dx = from.random(kValue, shape),
                                           .dweight = from.random(kExact, width)};
            const cuda::Workspace scratch = from.workspace(cuda::rmsnorm_backward_workspace_bytes(args));
            return KernelCase{
                .name = "rmsnorm_backward",
                .shape = shape.str(),
                .bytes = 4 * 2 * shape.numel(),
                .launch = [=](cuda::StreamHandle stream) { cuda::rmsnorm_backward(args, scratch, stream); },
                .count = [=](Backend& table, Stream& s) { table.rmsnorm_backward(args, s); }};
          }};
}

inline std::vector<CaseMaker> rope_cases(const ModelConfig& model, const BatchShape& batch) {
  const Shape shape{batch.tokens, model.n_heads * model.head_dim};
  const Shape table_shape{batch.seq_len, model.head_dim / 2};
  return {[=](TensorSource& from) {
    const RopeArgs args{.x = from.random(kValue, shape),
                        .positions = from.places(batch.tokens, batch.seq_len),
                        .cos = from.random(kExact, table_shape),
                        .sin = from.random(kExact, table_shape),
                        .head_dim = model.head_dim};
    return KernelCase{.name = "rope",
                      .shape = shape.str(),
                      .bytes = 2 * 2 * shape.numel(),
                      .launch = [=](cuda::StreamHandle stream) { cuda::rope(args, stream); },
                      .count = [=](Backend& table, Stream& s) { table.rope(args, s); }};
  }};
}

/// Which of the kernels for one problem; each is timed where it runs.
enum class AttentionKernels : std::uint8_t {
  kWithoutTensorCores,  // attention.cu, in float32
  kTensorCores,         // attention_tensor_core.cu, in bfloat16
  kHopper,              // hopper/, in bfloat16, unless CARAVAN_HOPPER_ATTENTION=0
};

/// Causal, without padding.
inline std::vector<CaseMaker> attention_cases(const ModelConfig& model, const BatchShape& batch,
                                              AttentionKernels kernels) {
  const bool is_exact = kernels == AttentionKernels::kWithoutTensorCores;
  const bool is_hopper = kernels == AttentionKernels::kHopper;
  const DType dtype = is_exact ? kExact : kValue;
  const std::string suffix = is_exact ? " float32" : is_hopper ? " hopper" : "";
  const std::int64_t rows = batch.tokens / batch.seq_len;
  const AttentionShape size{.batch = rows,
                            .query_len = batch.seq_len,
                            .key_len = batch.seq_len,
                            .n_heads = model.n_heads,
                            .n_kv_heads = model.n_kv_heads,
                            .head_dim = model.head_dim,
                            .scale = 1.0 / std::sqrt(static_cast<double>(model.head_dim))};
  const Shape q{batch.tokens, model.n_heads * model.head_dim};
  const Shape kv{batch.tokens, model.n_kv_heads * model.head_dim};
  const Shape lse{model.n_heads, batch.tokens};
  const std::string text = fmt::format("{} × {} tokens, {}/{} heads of {}", rows, batch.seq_len,
                                       model.n_heads, model.n_kv_heads, model.head_dim);
  // Two products forward, five backward, 2·E operations for each pair that is seen, half of the square.
  const std::int64_t product = 2 * rows * model.n_heads * batch.seq_len * batch.seq_len / 2 * model.head_dim;
  const auto mask = [=](TensorSource& from) {
    return AttentionMask{.query_index = from.places(batch.tokens, batch.seq_len),
                         .key_index = from.places(batch.tokens, batch.seq_len),
                         .document_start = from.places(batch.tokens, 1)};
  };
  return {[=](TensorSource& from) {
            const AttentionForwardArgs args{.shape = size,
                                            .mask = mask(from),
                                            .q = from.random(dtype, q),
                                            .k = from.random(dtype, kv),
                                            .v = from.random(dtype, kv),
                                            .o = from.random(dtype, q),
                                            .lse = from.random(kExact, lse)};
            return KernelCase{.name = "attention_forward" + suffix,
                              .shape = text,
                              .flops = 2 * product,
                              .runs =
                                  [=] {
                                    return is_exact || (is_hopper ? cuda::uses_hopper_attention()
                                                                  : cuda::runs_on_tensor_cores(args));
                                  },
                              .launch =
                                  [=](cuda::StreamHandle stream) {
                                    (is_exact    ? cuda::attention_forward
                                     : is_hopper ? cuda::hopper::attention_forward
                                                 : cuda::attention_forward_tensor_core)(args, stream);
                                  },
                              .count = [=](Backend& table, Stream& s) { table.attention_forward(args, s); }};
          },
          [=](TensorSource& from) {
            const AttentionBackwardArgs args{.shape = size,
                                             .mask = mask(from),
                                             .q = from.random(dtype, q),
                                             .k = from.random(dtype, kv),
                                             .v = from.random(dtype, kv),
                                             .o = from.random(dtype, q),
                                             .lse = from.random(kExact, lse),
                                             .d_o = from.random(dtype, q),
                                             .dq = from.random(dtype, q),
                                             .dk = from.random(dtype, kv),
                                             .dv = from.random(dtype, kv)};
            const cuda::Workspace scratch = from.workspace(cuda::attention_backward_workspace_bytes(size));
            return KernelCase{
                .name = "attention_backward" + suffix,
                .shape = text,
                .flops = 5 * product,
                .runs =
                    [=] {
                      return is_exact ||
                             (is_hopper ? cuda::uses_hopper_attention() : cuda::runs_on_tensor_cores(args));
                    },
                .launch =
                    [=](cuda::StreamHandle stream) {
                      (is_exact    ? cuda::attention_backward
                       : is_hopper ? cuda::hopper::attention_backward
                                   : cuda::attention_backward_tensor_core)(args, scratch, stream);
                    },
                .count = [=](Backend& table, Stream& s) { table.attention_backward(args, s); }};
          }};
}

/// Two parts of the keys into one.
inline std::vector<CaseMaker> attention_merge_cases(const ModelConfig& model, const BatchShape& batch) {
  const Shape q{batch.tokens, model.n_heads * model.head_dim};
  const Shape lse{model.n_heads, batch.tokens};
  return {[=](TensorSource& from) {
    const AttentionMergeArgs args{.o = from.random(kValue, q),
                                  .lse = from.random(kExact, lse),
                                  .o_part = from.random(kValue, q),
                                  .lse_part = from.random(kExact, lse)};
    return KernelCase{.name = "attention_merge",
                      .shape = q.str(),
                      .bytes = 3 * 2 * q.numel() + 3 * 4 * lse.numel(),
                      .launch = [=](cuda::StreamHandle stream) { cuda::attention_merge(args, stream); },
                      .count = [=](Backend& table, Stream& s) { table.attention_merge(args, s); }};
  }};
}

inline std::vector<CaseMaker> swiglu_cases(const ModelConfig& model, const BatchShape& batch) {
  const Shape shape{batch.tokens, model.intermediate_size};
  return {
      [=](TensorSource& from) {
        const SwigluForwardArgs args{.gate = from.random(kValue, shape),
                                     .up = from.random(kValue, shape),
                                     .h = from.random(kValue, shape)};
        return KernelCase{.name = "swiglu_forward",
                          .shape = shape.str(),
                          .bytes = 3 * 2 * shape.numel(),
                          .launch = [=](cuda::StreamHandle stream) { cuda::swiglu_forward(args, stream); },
                          .count = [=](Backend& table, Stream& s) { table.swiglu_forward(args, s); }};
      },
      [=](TensorSource& from) {
        const SwigluBackwardArgs args{.dh = from.random(kValue, shape),
                                      .gate = from.random(kValue, shape),
                                      .up = from.random(kValue, shape),
                                      .dgate = from.random(kValue, shape),
                                      .dup = from.random(kValue, shape)};
        return KernelCase{.name = "swiglu_backward",
                          .shape = shape.str(),
                          .bytes = 5 * 2 * shape.numel(),
                          .launch = [=](cuda::StreamHandle stream) { cuda::swiglu_backward(args, stream); },
                          .count = [=](Backend& table, Stream& s) { table.swiglu_backward(args, s); }};
      }};
}

}  // namespace caravan::benchmark

// The cases that belong to tokens and parameters rather than to a layer: embedding, head, optimizer, copies;
// and the list of all.
#pragma once

#include "benchmarks/cuda/layer_cases.h"

namespace caravan::benchmark {

inline std::vector<CaseMaker> embedding_cases(const ModelConfig& model, const BatchShape& batch) {
  const Shape shape{batch.tokens, model.hidden_size};
  const Shape table_shape{model.vocab_size, model.hidden_size};
  return {[=](TensorSource& from) {
            const EmbeddingForwardArgs args{.weight = from.random(kValue, table_shape),
                                            .ids = from.ids(batch.tokens, model.vocab_size),
                                            .y = from.random(kValue, shape)};
            return KernelCase{
                .name = "embedding_forward",
                .shape = shape.str(),
                .bytes = 2 * 2 * shape.numel(),
                .launch = [=](cuda::StreamHandle stream) { cuda::embedding_forward(args, stream); },
                .count = [=](Backend& table, Stream& s) { table.embedding_forward(args, s); }};
          },
          [=](TensorSource& from) {
            const EmbeddingBackwardArgs args{.dy = from.random(kValue, shape),
                                             .ids = from.ids(batch.tokens, model.vocab_size),
                                             .dweight = from.random(kExact, table_shape)};
            const cuda::Workspace scratch = from.workspace(cuda::embedding_backward_workspace_bytes(args));
            return KernelCase{
                .name = "embedding_backward",
                .shape = shape.str(),
                .bytes = (2 + 2 * 4) * shape.numel(),
                .beyond_table = 2 * 2 * shape.numel(),  // dweight is float32, the table counts it like dy
                .launch = [=](cuda::StreamHandle stream) { cuda::embedding_backward(args, scratch, stream); },
                .count = [=](Backend& table, Stream& s) { table.embedding_backward(args, s); }};
          }};
}

inline std::vector<CaseMaker> head_cases(const ModelConfig& model, const BatchShape& batch) {
  const std::int64_t rows = batch.logits_rows;
  const Shape shape{rows, model.vocab_size};
  return {[=](TensorSource& from) {
            const CrossEntropyStatsArgs args{.logits = from.random(kValue, shape),
                                             .targets = from.ids(rows, model.vocab_size),
                                             .row_max = from.random(kExact, {rows}),
                                             .row_sum = from.random(kExact, {rows}),
                                             .target_logit = from.random(kExact, {rows})};
            return KernelCase{
                .name = "cross_entropy_stats",
                .shape = shape.str(),
                .bytes = 2 * shape.numel(),
                .launch = [=](cuda::StreamHandle stream) { cuda::cross_entropy_stats(args, stream); },
                .count = [=](Backend& table, Stream& s) { table.cross_entropy_stats(args, s); }};
          },
          [=](TensorSource& from) {
            const CrossEntropyRescaleArgs args{.common_max = from.random(kExact, {rows}),
                                               .row_max = from.random(kExact, {rows}),
                                               .row_sum = from.random(kExact, {rows})};
            return KernelCase{
                .name = "cross_entropy_rescale",
                .shape = Shape{rows}.str(),
                .bytes = 5 * 4 * rows,
                .launch = [=](cuda::StreamHandle stream) { cuda::cross_entropy_rescale(args, stream); },
                .count = [=](Backend& table, Stream& s) { table.cross_entropy_rescale(args, s); }};
          },
          [=](TensorSource& from) {
            const CrossEntropyLossArgs args{.row_max = from.random(kExact, {rows}),
                                            .row_sum = from.random(kExact, {rows}),
                                            .target_logit = from.random(kExact, {rows}),
                                            .target_weights = from.random(kExact, {rows}),
                                            .lse = from.random(kExact, {rows}),
                                            .losses = from.random(kExact, {rows})};
            return KernelCase{
                .name = "cross_entropy_loss",
                .shape = Shape{rows}.str(),
                .bytes = 6 * 4 * rows,
                .beyond_table = 5 * 4 * rows,  // the table counts the losses alone
                .launch = [=](cuda::StreamHandle stream) { cuda::cross_entropy_loss(args, stream); },
                .count = [=](Backend& table, Stream& s) { table.cross_entropy_loss(args, s); }};
          },
          [=](TensorSource& from) {
            const CrossEntropyBackwardArgs args{.logits = from.random(kValue, shape),
                                                .targets = from.ids(rows, model.vocab_size),
                                                .target_weights = from.random(kExact, {rows}),
                                                .lse = from.random(kExact, {rows}),
                                                .scalars = from.scalars()};
            return KernelCase{
                .name = "cross_entropy_backward",
                .shape = shape.str(),
                .bytes = 2 * 2 * shape.numel(),
                .launch = [=](cuda::StreamHandle stream) { cuda::cross_entropy_backward(args, stream); },
                .count = [=](Backend& table, Stream& s) { table.cross_entropy_backward(args, s); }};
          },
          [=](TensorSource& from) {
            const CrossEntropyArgs args{.logits = from.random(kValue, shape),
                                        .targets = from.ids(rows, model.vocab_size),
                                        .target_weights = from.random(kExact, {rows}),
                                        .losses = from.random(kExact, {rows}),
                                        .scalars = from.scalars()};
            return KernelCase{.name = "cross_entropy",
                              .shape = shape.str(),
                              .bytes = 2 * 2 * shape.numel(),  // if the second pass finds the row in L2
                              .launch = [=](cuda::StreamHandle stream) { cuda::cross_entropy(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.cross_entropy(args, s); }};
          },
          [=](TensorSource& from) {
            const CrossEntropyArgs args{.logits = from.random(kValue, shape),
                                        .targets = from.ids(rows, model.vocab_size),
                                        .target_weights = from.random(kExact, {rows}),
                                        .losses = from.random(kExact, {rows}),
                                        .logits_after = LogitsAfter::kKept};
            return KernelCase{.name = "cross_entropy, losses alone",
                              .shape = shape.str(),
                              .bytes = 2 * shape.numel(),
                              .launch = [=](cuda::StreamHandle stream) { cuda::cross_entropy(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.cross_entropy(args, s); }};
          }};
}

/// One matrix of the MLP.
inline std::vector<CaseMaker> optimizer_cases(const ModelConfig& model) {
  const Shape shape{model.intermediate_size, model.hidden_size};
  const std::int64_t n = shape.numel();
  return {[=](TensorSource& from) {
            const AdamwArgs args{.param = from.random(kValue, shape),
                                 .grad = from.random(kExact, shape),
                                 .m = from.random(kExact, shape),
                                 .v = from.random(kExact, shape),
                                 .master = from.random(kExact, shape),
                                 .weight_decay = 0.1,
                                 .scalars = from.scalars(),
                                 .state = from.update_state()};
            return KernelCase{.name = "adamw",
                              .shape = shape.str(),
                              .bytes = (4 + 2 * 3 * 4 + 2) * n,
                              // The table reads the weights, too, and knows no master copy.
                              .beyond_table = (2 * 4 - 2) * n,
                              .launch = [=](cuda::StreamHandle stream) { cuda::adamw(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.adamw(args, s); }};
          },
          [=](TensorSource& from) {
            const AdamwArgs args{.param = from.random(kValue, shape),
                                 .grad = from.random(kExact, shape),
                                 .m = from.random(kExact, shape),
                                 .v = from.random(kExact, shape),
                                 .rounding = {.is_on = true, .global_cols = shape[1], .seed = 1},
                                 .weight_decay = 0.1,
                                 .scalars = from.scalars(),
                                 .state = from.update_state()};
            return KernelCase{.name = "adamw stochastic rounding",
                              .shape = shape.str(),
                              .bytes = (4 + 2 * 2 * 4 + 2 * 2) * n,
                              .launch = [=](cuda::StreamHandle stream) { cuda::adamw(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.adamw(args, s); }};
          },
          [=](TensorSource& from) {
            const TensorView x = from.random(kExact, shape);
            const SumSquaresArgs args{
                .x = x,
                .result = TensorView(from.workspace(sizeof(double)).data, DType::kFloat64, {1}, x.device())};
            const cuda::Workspace scratch = from.workspace(cuda::sum_workspace_bytes(x));
            return KernelCase{
                .name = "sum_squares",
                .shape = shape.str(),
                .bytes = 4 * n,
                .launch = [=](cuda::StreamHandle stream) { cuda::sum_squares(args, scratch, stream); },
                .count = [=](Backend& table, Stream& s) { table.sum_squares(args, s); }};
          },
          [=](TensorSource& from) {
            const TensorView x = from.random(kExact, shape);
            const SumArgs args{
                .x = x,
                .result = TensorView(from.workspace(sizeof(double)).data, DType::kFloat64, {1}, x.device())};
            const cuda::Workspace scratch = from.workspace(cuda::sum_workspace_bytes(x));
            return KernelCase{.name = "sum",
                              .shape = shape.str(),
                              .bytes = 4 * n,
                              .launch = [=](cuda::StreamHandle stream) { cuda::sum(args, scratch, stream); },
                              .count = [=](Backend& table, Stream& s) { table.sum(args, s); }};
          },
          [=](TensorSource& from) {
            const CopyArgs args{.from = from.random(kExact, shape), .to = from.random(kValue, shape)};
            return KernelCase{.name = "copy float32 to bfloat16",
                              .shape = shape.str(),
                              .bytes = (4 + 2) * n,
                              .launch = [=](cuda::StreamHandle stream) { cuda::copy(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.copy(args, s); }};
          },
          [=](TensorSource& from) {
            const cuda::TransposeArgs args{.from = from.random(kValue, shape),
                                           .to = from.random(kValue, {shape[1], shape[0]})};
            return KernelCase{.name = "transpose",
                              .shape = shape.str(),
                              .bytes = 2 * 2 * n,
                              .launch = [=](cuda::StreamHandle stream) { cuda::transpose(args, stream); }};
          },
          [=](TensorSource& from) {
            const RandomNormalArgs args{.y = from.random(kValue, shape), .global_cols = shape[1], .seed = 1};
            return KernelCase{.name = "random_normal",
                              .shape = shape.str(),
                              .bytes = 2 * n,
                              .launch = [=](cuda::StreamHandle stream) { cuda::random_normal(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.random_normal(args, s); }};
          }};
}

inline std::vector<CaseMaker> elementwise_cases(const ModelConfig& model, const BatchShape& batch) {
  const Shape shape{batch.tokens, model.hidden_size};
  const std::int64_t queries = model.n_heads * model.head_dim;
  const Shape packed{batch.tokens, queries + 2 * model.n_kv_heads * model.head_dim};
  return {[=](TensorSource& from) {
            const AddArgs args{.x = from.random(kValue, shape),
                               .z = from.random(kValue, shape),
                               .y = from.random(kValue, shape)};
            return KernelCase{.name = "add",
                              .shape = shape.str(),
                              .bytes = 3 * 2 * shape.numel(),
                              .launch = [=](cuda::StreamHandle stream) { cuda::add(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.add(args, s); }};
          },
          [=](TensorSource& from) {
            const ScaleArgs args{.x = from.random(kValue, shape), .factor = -1.0};
            return KernelCase{.name = "scale",
                              .shape = shape.str(),
                              .bytes = 2 * 2 * shape.numel(),
                              .launch = [=](cuda::StreamHandle stream) { cuda::scale(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.scale(args, s); }};
          },
          [=](TensorSource& from) {
            const DropoutArgs args{.x = from.random(kValue, shape),
                                   .y = from.random(kValue, shape),
                                   .rows = from.places(batch.tokens, 1),
                                   .places = from.places(batch.tokens, batch.seq_len),
                                   .rate = 0.1,
                                   .scalars = from.scalars()};
            return KernelCase{.name = "dropout",
                              .shape = shape.str(),
                              .bytes = 2 * 2 * shape.numel(),
                              .launch = [=](cuda::StreamHandle stream) { cuda::dropout(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.dropout(args, s); }};
          },
          [=](TensorSource& from) {
            const CopyArgs args{.from = from.random(kValue, packed).slice(1, 0, queries),
                                .to = from.random(kValue, {batch.tokens, queries})};
            return KernelCase{.name = "copy of columns",
                              .shape = fmt::format("{} of {}", args.to.shape().str(), packed.str()),
                              .bytes = 2 * 2 * batch.tokens * queries,
                              .launch = [=](cuda::StreamHandle stream) { cuda::copy(args, stream); },
                              .count = [=](Backend& table, Stream& s) { table.copy(args, s); }};
          }};
}

/// Every kernel that moves or computes much, in the order of a step. Attention in float32, without tensor
/// cores, is timed on one row.
inline std::vector<CaseMaker> kernel_cases(const ModelConfig& model, const BatchShape& batch) {
  const BatchShape one_row{.tokens = batch.seq_len, .seq_len = batch.seq_len};
  std::vector<CaseMaker> all;
  for (const std::vector<CaseMaker>& some :
       {embedding_cases(model, batch), norm_cases(model, batch), rope_cases(model, batch),
        attention_cases(model, batch, AttentionKernels::kTensorCores),
        attention_cases(model, batch, AttentionKernels::kHopper),
        attention_cases(model, one_row, AttentionKernels::kWithoutTensorCores),
        attention_merge_cases(model, batch), swiglu_cases(model, batch), head_cases(model, batch),
        elementwise_cases(model, batch), optimizer_cases(model)}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

}  // namespace caravan::benchmark

#include "kernels/reference/op_registry.h"

#include <fmt/format.h>

#include <array>
#include <memory>

#include "kernels/reference/op_registry_cases.h"

namespace caravan::reference {
namespace {

Stream compute_stream() {
  return {};
}

void copy(Backend& backend, const TensorView& from, const TensorView& to) {
  Stream stream = compute_stream();
  backend.copy({.from = from, .to = to}, stream);
}

CaseSize size_of(std::int64_t elements) {
  constexpr std::int64_t kLargestSmall = 200;
  return elements <= kLargestSmall ? CaseSize::kSmall : CaseSize::kLarge;
}

// ---- products

OpCase linear_case(std::int64_t rows, std::int64_t in, std::int64_t out) {
  OpCase op{.op = "linear", .label = fmt::format("T={} in={} out={}", rows, in, out)};
  op.size = size_of(rows * in + in * out);
  op.inputs = {{"x", {rows, in}}, {"w", {out, in}, InputGradient::kAccumulated}};
  op.outputs = {{"y", {rows, out}}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.matmul_nt({.a = v.inputs[0], .b = DenseWeight{v.inputs[1]}, .c = v.outputs[0]}, stream);
  };
  op.backward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.matmul_nn({.a = v.doutputs[0], .b = DenseWeight{v.inputs[1]}, .c = v.dinputs[0]}, stream);
    backend.matmul_tn({.a = v.doutputs[0], .b = v.inputs[0], .c = v.dinputs[1]}, stream);
  };
  return op;
}

/// y = bias + x w, the products with the other setting of `accumulate`.
OpCase added_product_case(std::int64_t rows, std::int64_t in, std::int64_t out) {
  OpCase op{.op = "added product", .label = fmt::format("T={} in={} out={}", rows, in, out)};
  op.size = size_of(rows * in + in * out);
  op.inputs = {{"x", {rows, in}, InputGradient::kAccumulated},
               {"w", {in, out}, InputGradient::kWritten},
               {"bias", {rows, out}}};
  op.outputs = {{"y", {rows, out}}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.inputs[2], v.outputs[0]);
    backend.matmul_nn({v.inputs[0], DenseWeight{v.inputs[1]}, v.outputs[0], Accumulate::kAdd}, stream);
  };
  op.backward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.matmul_nt({v.doutputs[0], DenseWeight{v.inputs[1]}, v.dinputs[0], Accumulate::kAdd}, stream);
    backend.matmul_tn({v.inputs[0], v.doutputs[0], v.dinputs[1], Accumulate::kOverwrite}, stream);
    copy(backend, v.doutputs[0], v.dinputs[2]);
  };
  return op;
}

void add_products(std::vector<OpCase>& cases) {
  const std::vector<std::array<std::int64_t, 3>> sizes = {{1, 5, 3},     {3, 7, 2},     {4, 1, 6},
                                                          {0, 3, 4},     {2, 3, 1},     {1, 131, 67},
                                                          {65, 129, 33}, {33, 64, 128}, {256, 40, 7}};
  for (const auto& [rows, in, out] : sizes) {
    cases.push_back(linear_case(rows, in, out));
    cases.push_back(added_product_case(rows, in, out));
  }
}

// ---- embedding, norm, rotation

/// The `vocab` rows from `begin` on of a table of `whole` rows.
OpCase embedding_case(std::vector<std::int32_t> ids, std::int64_t vocab, std::int64_t width,
                      std::int64_t begin = 0, std::int64_t whole = 0) {
  const auto count = static_cast<std::int64_t>(ids.size());
  OpCase op{.op = "embedding", .label = fmt::format("T={} V={} from {} D={}", count, vocab, begin, width)};
  op.size = size_of(vocab * width);
  op.inputs = {{"weight", {vocab, width}, InputGradient::kAccumulated}};
  op.constants = {std::move(ids)};
  op.outputs = {{"y", {count, width}}};
  op.forward = [begin, whole](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.embedding_forward({v.inputs[0], v.constants[0], v.outputs[0], begin, whole}, stream);
  };
  op.backward = [begin, whole](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.embedding_backward({v.doutputs[0], v.constants[0], v.dinputs[0], begin, whole}, stream);
  };
  return op;
}

constexpr double kNormEps = 1e-5;

OpCase rmsnorm_case(std::int64_t rows, std::int64_t width) {
  OpCase op{.op = "rmsnorm", .label = fmt::format("T={} D={}", rows, width)};
  op.size = size_of(rows * width);
  op.inputs = {{"x", {rows, width}, InputGradient::kAccumulated},
               {"weight", {width}, InputGradient::kAccumulated, 0.5, 1.5}};
  op.outputs = {{"y", {rows, width}}, {"rstd", {rows}, OutputKind::kSaved}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.rmsnorm_forward({v.inputs[0], {}, {}, v.inputs[1], kNormEps, v.outputs[0], v.outputs[1]}, stream);
  };
  op.backward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.rmsnorm_backward({.dy = v.doutputs[0],
                              .x = v.inputs[0],
                              .weight = v.inputs[1],
                              .rstd = v.outputs[1],
                              .dx = v.dinputs[0],
                              .dweight = v.dinputs[1]},
                             stream);
  };
  return op;
}

/// The residual form: sum = x + delta leaves the op too, so its gradient joins that of the norm; the weight's
/// gradient is not wanted.
OpCase residual_rmsnorm_case(std::int64_t rows, std::int64_t width) {
  OpCase op{.op = "residual rmsnorm", .label = fmt::format("T={} D={}", rows, width)};
  op.size = size_of(rows * width);
  op.inputs = {
      {"x", {rows, width}}, {"delta", {rows, width}}, {"weight", {width}, InputGradient::kNone, 0.5, 1.5}};
  op.outputs = {{"sum", {rows, width}}, {"y", {rows, width}}, {"rstd", {rows}, OutputKind::kSaved}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.inputs[0], v.outputs[0]);  // the sum in the memory of x
    backend.rmsnorm_forward(
        {v.outputs[0], v.inputs[1], v.outputs[0], v.inputs[2], kNormEps, v.outputs[1], v.outputs[2]}, stream);
  };
  op.backward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.doutputs[0], v.dinputs[0]);
    backend.rmsnorm_backward(
        {v.doutputs[1], v.outputs[0], v.inputs[2], v.outputs[2], v.dinputs[0], TensorView()}, stream);
    copy(backend, v.dinputs[0], v.dinputs[1]);
  };
  return op;
}

OpCase rope_case(std::vector<std::int32_t> positions, std::int64_t heads, std::int64_t head_dim) {
  const auto count = static_cast<std::int64_t>(positions.size());
  constexpr std::int64_t kTableRows = 11;
  OpCase op{.op = "rope", .label = fmt::format("T={} heads={} E={}", count, heads, head_dim)};
  op.size = size_of(count * heads * head_dim);
  op.inputs = {{"x", {count, heads * head_dim}},
               {"cos", {kTableRows, head_dim / 2}, InputGradient::kNone},
               {"sin", {kTableRows, head_dim / 2}, InputGradient::kNone}};
  op.constants = {std::move(positions)};
  op.outputs = {{"y", {count, heads * head_dim}}};
  const auto rotate = [head_dim](Backend& backend, const OpViews& v, const TensorView& x,
                                 RopeDirection direction) {
    Stream stream = compute_stream();
    backend.rope({x, v.constants[0], v.inputs[1], v.inputs[2], head_dim, direction}, stream);
  };
  op.forward = [rotate](Backend& backend, const OpViews& v) {
    copy(backend, v.inputs[0], v.outputs[0]);
    rotate(backend, v, v.outputs[0], RopeDirection::kForward);
  };
  op.backward = [rotate](Backend& backend, const OpViews& v) {
    copy(backend, v.doutputs[0], v.dinputs[0]);
    rotate(backend, v, v.dinputs[0], RopeDirection::kBackward);
  };
  return op;
}

void add_rows(std::vector<OpCase>& cases) {
  cases.push_back(embedding_case({3, 0, 3, 4, 3}, 5, 3));
  cases.push_back(embedding_case({}, 4, 2));
  cases.push_back(embedding_case(repeated_ids(97, 31), 31, 133));
  cases.push_back(embedding_case({3, 0, 6, 4, 3, 2, 8}, 3, 4, 2, 9));
  cases.push_back(embedding_case({3, 0}, 0, 2, 4, 5));
  cases.push_back(embedding_case(repeated_ids(97, 61), 31, 133, 20, 61));
  for (const auto& [rows, width] : std::vector<std::array<std::int64_t, 2>>{
           {1, 1}, {3, 7}, {2, 16}, {0, 5}, {5, 33}, {3, 1030}, {517, 65}}) {
    cases.push_back(rmsnorm_case(rows, width));
    cases.push_back(residual_rmsnorm_case(rows, width));
  }
  cases.push_back(rope_case({0, 4, 4, 10}, 3, 6));
  cases.push_back(rope_case({7}, 1, 2));
  cases.push_back(rope_case({}, 2, 4));
  cases.push_back(rope_case(repeated_ids(37, 11), 5, 34));
  cases.push_back(rope_case(repeated_ids(9, 11), 3, 128));
}

// ---- attention

OpCase attention_case(const AttentionCase& at) {
  const AttentionShape& shape = at.shape;
  const std::int64_t queries = shape.batch * shape.query_len;
  const std::int64_t keys = shape.batch * shape.key_len;
  OpCase op{.op = "attention", .label = at.label()};
  op.size = size_of(queries * shape.n_heads * shape.head_dim);
  op.inputs = {{"q", {queries, shape.n_heads * shape.head_dim}, InputGradient::kWritten, -2.0, 2.0},
               {"k", {keys, shape.n_kv_heads * shape.head_dim}, InputGradient::kWritten, -2.0, 2.0},
               {"v", {keys, shape.n_kv_heads * shape.head_dim}}};
  op.constants = {at.query_index, at.key_index, at.document_start};
  op.outputs = {{"o", {queries, shape.n_heads * shape.head_dim}},
                {"lse", {shape.n_heads, queries}, OutputKind::kSaved}};
  op.forward = [shape](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.attention_forward({.shape = shape,
                               .mask = {v.constants[0], v.constants[1], v.constants[2]},
                               .q = v.inputs[0],
                               .k = v.inputs[1],
                               .v = v.inputs[2],
                               .o = v.outputs[0],
                               .lse = v.outputs[1]},
                              stream);
  };
  op.backward = [shape](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.attention_backward({.shape = shape,
                                .mask = {v.constants[0], v.constants[1], v.constants[2]},
                                .q = v.inputs[0],
                                .k = v.inputs[1],
                                .v = v.inputs[2],
                                .o = v.outputs[0],
                                .lse = v.outputs[1],
                                .d_o = v.doutputs[0],
                                .dq = v.dinputs[0],
                                .dk = v.dinputs[1],
                                .dv = v.dinputs[2]},
                               stream);
  };
  return op;
}

/// Keys [0, first) and the rest apart, then joined: what a ring of ranks does. One row.
OpCase divided_attention_case(const AttentionCase& at, std::int64_t first) {
  OpCase op = attention_case(at);
  op.op = "divided attention";
  op.label += fmt::format(" cut at {}", first);
  op.outputs.push_back({"o_part", op.outputs[0].shape, OutputKind::kSaved});
  op.outputs.push_back({"lse_part", op.outputs[1].shape, OutputKind::kSaved});
  const auto keys = [at, first](int part, const TensorView& all) {
    return part == 0 ? all.rows(0, first) : all.rows(first, at.shape.key_len);
  };
  const auto shape = [at, first](int part) {
    AttentionShape of_part = at.shape;
    of_part.key_len = part == 0 ? first : at.shape.key_len - first;
    return of_part;
  };
  op.forward = [=](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    for (const int part : {0, 1}) {
      const std::size_t out = part == 0 ? 0 : 2;
      backend.attention_forward({shape(part),
                                 {v.constants[0], keys(part, v.constants[1]), v.constants[2]},
                                 v.inputs[0],
                                 keys(part, v.inputs[1]),
                                 keys(part, v.inputs[2]),
                                 v.outputs[out],
                                 v.outputs[out + 1]},
                                stream);
    }
    backend.attention_merge({v.outputs[0], v.outputs[1], v.outputs[2], v.outputs[3]}, stream);
  };
  op.backward = [=](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    const Buffer memory = backend.allocate(v.dinputs[0].bytes());
    const TensorView dq_part = memory.view(0, v.dinputs[0].dtype(), v.dinputs[0].shape());
    for (const int part : {0, 1}) {
      AttentionBackwardArgs args{};
      args.shape = shape(part);
      args.mask = {v.constants[0], keys(part, v.constants[1]), v.constants[2]};
      args.q = v.inputs[0];
      args.k = keys(part, v.inputs[1]);
      args.v = keys(part, v.inputs[2]);
      args.o = v.outputs[0];
      args.lse = v.outputs[1];
      args.d_o = v.doutputs[0];
      args.dq = part == 0 ? v.dinputs[0] : dq_part;
      args.dk = keys(part, v.dinputs[1]);
      args.dv = keys(part, v.dinputs[2]);
      backend.attention_backward(args, stream);
    }
    backend.add({.x = v.dinputs[0], .z = dq_part, .y = v.dinputs[0]}, stream);
  };
  return op;
}

void add_attention(std::vector<OpCase>& cases) {
  for (const AttentionCase& at : attention_cases()) {
    cases.push_back(attention_case(at));
    if (at.shape.batch == 1 && at.shape.key_len > 1) {
      cases.push_back(divided_attention_case(at, at.shape.key_len / 2 + 1));
    }
  }
}

// ---- activation

enum class GradientMemory : std::uint8_t { kOwn, kOfInputs };

OpCase swiglu_case(std::int64_t rows, std::int64_t width, GradientMemory memory, double range) {
  OpCase op{.op = "swiglu", .label = fmt::format("T={} F={} range={}", rows, width, range)};
  op.label += memory == GradientMemory::kOfInputs ? " in place" : "";
  op.size = size_of(rows * width);
  op.inputs = {{"gate", {rows, width}, InputGradient::kWritten, -range, range}, {"up", {rows, width}}};
  op.outputs = {{"h", {rows, width}}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.swiglu_forward({.gate = v.inputs[0], .up = v.inputs[1], .h = v.outputs[0]}, stream);
  };
  op.backward = [memory](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    TensorView gate = v.inputs[0];
    TensorView up = v.inputs[1];
    if (memory == GradientMemory::kOfInputs) {
      copy(backend, gate, v.dinputs[0]);
      copy(backend, up, v.dinputs[1]);
      gate = v.dinputs[0];
      up = v.dinputs[1];
    }
    backend.swiglu_backward({v.doutputs[0], gate, up, v.dinputs[0], v.dinputs[1]}, stream);
  };
  return op;
}

void add_activations(std::vector<OpCase>& cases) {
  cases.push_back(swiglu_case(3, 7, GradientMemory::kOwn, 4.0));
  cases.push_back(swiglu_case(2, 17, GradientMemory::kOfInputs, 4.0));
  cases.push_back(swiglu_case(2, 9, GradientMemory::kOwn, 120.0));  // exp(-gate) overflows float32
  cases.push_back(swiglu_case(0, 3, GradientMemory::kOwn, 1.0));
  cases.push_back(swiglu_case(41, 517, GradientMemory::kOfInputs, 20.0));
}

// ---- loss

/// What the row statistics pass through before the loss.
enum class CommonMaximum : std::uint8_t { kOwn, kOfAllRanks };

/// targets may lie outside the columns [vocab_begin, vocab_begin + width) of this rank.
OpCase cross_entropy_case(std::vector<std::int32_t> targets, std::vector<float> weights, std::int64_t width,
                          std::int64_t vocab_begin, CommonMaximum maximum = CommonMaximum::kOwn) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const auto scalars = std::make_shared<StepScalars>();
  scalars->inv_valid_tokens = 1.0 / 7.0;
  OpCase op{.op = "cross entropy", .label = fmt::format("C={} V={} from {}", rows, width, vocab_begin)};
  op.size = size_of(rows * width);
  op.label += maximum == CommonMaximum::kOfAllRanks ? " rescaled" : "";
  op.inputs = {{"logits", {rows, width}, InputGradient::kWritten, -6.0, 6.0},
               {"common_max", {rows}, InputGradient::kNone, 6.0, 8.0}};
  op.constants = {std::move(targets), std::move(weights)};
  op.outputs = {{"losses", {rows}, OutputKind::kResult, scalars->inv_valid_tokens},
                {"row_max", {rows}, OutputKind::kSaved},
                {"row_sum", {rows}, OutputKind::kSaved},
                {"target_logit", {rows}, OutputKind::kSaved},
                {"lse", {rows}, OutputKind::kSaved}};
  op.forward = [vocab_begin, maximum](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.cross_entropy_stats(
        {v.inputs[0], v.constants[0], vocab_begin, v.outputs[1], v.outputs[2], v.outputs[3]}, stream);
    if (maximum == CommonMaximum::kOfAllRanks) {
      backend.cross_entropy_rescale({v.inputs[1], v.outputs[1], v.outputs[2]}, stream);
    }
    backend.cross_entropy_loss(
        {v.outputs[1], v.outputs[2], v.outputs[3], v.constants[1], v.outputs[4], v.outputs[0]}, stream);
  };
  op.backward = [vocab_begin, scalars](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.inputs[0], v.dinputs[0]);
    backend.cross_entropy_backward(
        {v.dinputs[0], v.constants[0], v.constants[1], v.outputs[4], vocab_begin, scalars.get()}, stream);
  };
  return op;
}

/// Loss and gradient at once, of a whole vocabulary.
OpCase whole_cross_entropy_case(std::vector<std::int32_t> targets, std::vector<float> weights,
                                std::int64_t width) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const auto scalars = std::make_shared<StepScalars>();
  scalars->inv_valid_tokens = 1.0 / 7.0;
  OpCase op{.op = "whole cross entropy", .label = fmt::format("C={} V={}", rows, width)};
  op.size = size_of(rows * width);
  op.inputs = {{"logits", {rows, width}, InputGradient::kWritten, -6.0, 6.0}};
  op.constants = {std::move(targets), std::move(weights)};
  op.outputs = {{"losses", {rows}, OutputKind::kResult, scalars->inv_valid_tokens},
                {"losses beside the gradient", {rows}, OutputKind::kSaved}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.cross_entropy(
        {v.inputs[0], v.constants[0], v.constants[1], v.outputs[0], LogitsAfter::kKept, nullptr}, stream);
    const Buffer memory = backend.allocate(v.inputs[0].bytes());
    const TensorView logits = memory.view(0, v.inputs[0].dtype(), v.inputs[0].shape());
    const StepScalars any;
    copy(backend, v.inputs[0], logits);
    backend.cross_entropy(
        {logits, v.constants[0], v.constants[1], v.outputs[1], LogitsAfter::kGradient, &any}, stream);
  };
  op.backward = [scalars](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    const Buffer memory = backend.allocate(v.outputs[0].bytes());
    const TensorView losses = memory.view(0, v.outputs[0].dtype(), v.outputs[0].shape());
    copy(backend, v.inputs[0], v.dinputs[0]);
    backend.cross_entropy(
        {v.dinputs[0], v.constants[0], v.constants[1], losses, LogitsAfter::kGradient, scalars.get()},
        stream);
  };
  return op;
}

void add_losses(std::vector<OpCase>& cases) {
  cases.push_back(whole_cross_entropy_case({2, 0, 6, 3}, {1.0F, 1.0F, 0.0F, 0.5F}, 7));
  cases.push_back(whole_cross_entropy_case({}, {}, 5));
  cases.push_back(whole_cross_entropy_case({0}, {2.0F}, 1));
  cases.push_back(whole_cross_entropy_case(repeated_ids(19, 2053), std::vector<float>(19, 1.0F), 2053));
  cases.push_back(cross_entropy_case({2, 0, 6, 3}, {1.0F, 1.0F, 0.0F, 0.5F}, 7, 0));
  cases.push_back(cross_entropy_case({2, 9, 12, 10, 13}, {1.0F, 1.0F, 1.0F, 0.0F, 2.0F}, 4, 9));
  cases.push_back(cross_entropy_case({2, 9, 12, 10, 13}, {1.0F, 1.0F, 1.0F, 0.0F, 2.0F}, 4, 9,
                                     CommonMaximum::kOfAllRanks));
  cases.push_back(cross_entropy_case({}, {}, 5, 0));
  cases.push_back(cross_entropy_case(repeated_ids(70, 131), std::vector<float>(70, 1.0F), 67, 33,
                                     CommonMaximum::kOfAllRanks));
  cases.push_back(cross_entropy_case(repeated_ids(19, 2053), std::vector<float>(19, 1.0F), 2053, 0));
}

// ---- elementwise, copies

void add_elementwise(std::vector<OpCase>& cases, std::int64_t rows, std::int64_t width) {
  const Shape shape{rows, width};
  const std::string label = fmt::format("{}x{}", rows, width);
  const CaseSize size = size_of(rows * width);
  OpCase sum{.op = "add", .label = label, .size = size, .inputs = {{"x", shape}, {"z", shape}}};
  sum.outputs = {{"y", shape}};
  sum.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.inputs[1], v.outputs[0]);
    backend.add({.x = v.inputs[0], .z = v.outputs[0], .y = v.outputs[0]}, stream);
  };
  sum.backward = [](Backend& backend, const OpViews& v) {
    copy(backend, v.doutputs[0], v.dinputs[0]);
    copy(backend, v.doutputs[0], v.dinputs[1]);
  };
  cases.push_back(std::move(sum));

  constexpr double kFactor = -0.3;
  OpCase scaled{.op = "scale", .label = label, .size = size, .inputs = {{"x", shape}}};
  scaled.outputs = {{"y", shape}};
  scaled.forward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.inputs[0], v.outputs[0]);
    backend.scale({v.outputs[0], kFactor}, stream);
  };
  scaled.backward = [](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    copy(backend, v.doutputs[0], v.dinputs[0]);
    backend.scale({v.dinputs[0], kFactor}, stream);
  };
  cases.push_back(std::move(scaled));
}

/// y = the middle third of x's columns; its gradient is zero elsewhere.
OpCase strided_copy_case(std::int64_t rows, std::int64_t width) {
  OpCase op{.op = "strided copy", .label = fmt::format("{}x{}", rows, width)};
  op.size = size_of(rows * width * 3);
  op.inputs = {{"x", {rows, 3 * width}}};
  op.outputs = {{"y", {rows, width}}};
  op.forward = [width](Backend& backend, const OpViews& v) {
    copy(backend, v.inputs[0].slice(1, width, 2 * width), v.outputs[0]);
  };
  op.backward = [width](Backend& backend, const OpViews& v) {
    Stream stream = compute_stream();
    backend.zero({v.dinputs[0]}, stream);
    copy(backend, v.doutputs[0], v.dinputs[0].slice(1, width, 2 * width));
  };
  return op;
}

}  // namespace

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_products(cases);
  add_rows(cases);
  add_attention(cases);
  add_activations(cases);
  add_losses(cases);
  add_elementwise(cases, 3, 5);
  add_elementwise(cases, 0, 4);
  add_elementwise(cases, 129, 257);
  add_dropout(cases);
  cases.push_back(strided_copy_case(3, 5));
  cases.push_back(strided_copy_case(67, 129));
  add_cases_without_derivative(cases);
  return cases;
}

}  // namespace caravan::reference

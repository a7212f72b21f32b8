#include "kernels/reference/op_registry_cases.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <memory>

#include "caravan/backend/device_memory.h"

namespace caravan::reference {

std::vector<std::int32_t> repeated_ids(std::int64_t count, std::int32_t bound) {
  constexpr std::int64_t kStride = 7;
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>((i * i + kStride * i) % bound));
  }
  return ids;
}

// ---- attention masks

std::string AttentionCase::label() const {
  return fmt::format("{} B={} Sq={} Sk={} H={} G={} E={}", name, shape.batch, shape.query_len, shape.key_len,
                     shape.n_heads, shape.n_kv_heads, shape.head_dim);
}

namespace {

struct Sizes {
  std::int64_t batch, query_len, key_len, n_heads, n_kv_heads, head_dim;
};

/// Queries are the last query_len of key_len tokens; one document per row.
AttentionCase causal(std::string name, const Sizes& sizes) {
  AttentionCase at{.name = std::move(name)};
  at.shape = {sizes.batch,
              sizes.query_len,
              sizes.key_len,
              sizes.n_heads,
              sizes.n_kv_heads,
              sizes.head_dim,
              1.0 / std::sqrt(static_cast<double>(sizes.head_dim))};
  for (std::int64_t row = 0; row < sizes.batch; ++row) {
    for (std::int64_t i = 0; i < sizes.query_len; ++i) {
      at.query_index.push_back(static_cast<std::int32_t>(sizes.key_len - sizes.query_len + i));
      at.document_start.push_back(0);
    }
    for (std::int64_t j = 0; j < sizes.key_len; ++j) {
      at.key_index.push_back(static_cast<std::int32_t>(j));
    }
  }
  return at;
}

/// Documents of irregular lengths, other ones in each row.
AttentionCase packed(const Sizes& sizes, std::int64_t document_length) {
  AttentionCase at = causal("packed", sizes);
  for (std::int64_t row = 0; row < sizes.batch; ++row) {
    std::int64_t start = 0;
    for (std::int64_t i = 0; i < sizes.query_len; ++i) {
      if (i - start >= document_length + row + start % 3) {
        start = i;
      }
      at.document_start[static_cast<std::size_t>(row * sizes.query_len + i)] =
          static_cast<std::int32_t>(start);
    }
  }
  return at;
}

/// Every third query sees nothing.
AttentionCase with_blind_queries(const Sizes& sizes) {
  AttentionCase at = causal("blind queries", sizes);
  for (std::size_t i = 0; i < at.document_start.size(); i += 3) {
    at.document_start[i] = at.query_index[i] + 1;
  }
  return at;
}

/// A cache: only `used` of the keys are at or before the last query.
AttentionCase cached(const Sizes& sizes, std::int64_t used) {
  AttentionCase at = causal("cached", sizes);
  for (std::int32_t& index : at.query_index) {
    index -= static_cast<std::int32_t>(sizes.key_len - used);
  }
  return at;
}

/// Queries from both ends of the row, as a load-balanced context split hands them out.
AttentionCase zigzag(const Sizes& sizes) {
  AttentionCase at = causal("zigzag", sizes);
  for (std::size_t i = 0; i < at.query_index.size(); ++i) {
    const auto in_row = static_cast<std::int64_t>(i) % sizes.query_len;
    const bool is_late = in_row >= sizes.query_len / 2;
    at.query_index[i] =
        static_cast<std::int32_t>(is_late ? sizes.key_len - sizes.query_len + in_row : in_row);
  }
  return at;
}

/// Queries in no order, as nobody promises one.
AttentionCase shuffled(const Sizes& sizes) {
  AttentionCase at = packed(sizes, 7);
  at.name = "shuffled queries";
  constexpr std::int64_t kStep = 37;  // prime to the lengths used
  const AttentionCase sorted = at;
  for (std::int64_t row = 0; row < sizes.batch; ++row) {
    for (std::int64_t i = 0; i < sizes.query_len; ++i) {
      const auto to = static_cast<std::size_t>(row * sizes.query_len + i);
      const auto from = static_cast<std::size_t>(row * sizes.query_len + i * kStep % sizes.query_len);
      at.query_index[to] = sorted.query_index[from];
      at.document_start[to] = sorted.document_start[from];
    }
  }
  return at;
}

}  // namespace

std::vector<AttentionCase> attention_cases() {
  return {
      causal("causal", {1, 5, 5, 2, 2, 3}),
      causal("causal", {2, 4, 4, 2, 1, 4}),
      causal("causal", {1, 4, 4, 6, 2, 2}),
      causal("causal", {2, 3, 3, 4, 1, 5}),
      packed({2, 9, 9, 2, 1, 2}, 2),
      with_blind_queries({2, 5, 5, 2, 2, 2}),
      causal("suffix", {1, 3, 8, 2, 1, 4}),
      cached({2, 1, 7, 4, 2, 3}, 4),
      zigzag({1, 4, 8, 3, 1, 4}),
      causal("no tokens", {2, 0, 3, 2, 1, 2}),
      causal("causal", {2, 200, 200, 4, 2, 64}),
      causal("causal", {1, 97, 97, 3, 1, 37}),
      causal("causal", {1, 161, 161, 2, 2, 128}),
      packed({2, 190, 190, 4, 1, 32}, 17),
      with_blind_queries({1, 150, 150, 2, 1, 24}),
      causal("suffix", {1, 70, 300, 3, 1, 48}),
      cached({2, 1, 500, 8, 2, 64}, 333),
      cached({1, 3, 129, 2, 1, 40}, 77),
      zigzag({2, 128, 256, 2, 1, 16}),
      shuffled({2, 5, 5, 2, 1, 2}),
      shuffled({1, 150, 150, 2, 1, 24}),
      causal("wide heads", {1, 67, 67, 1, 1, 256}),
  };
}

// ---- dropout

namespace {

/// Tokens of several rows in no order, as a rank of a context split has them.
OpCase dropout_case(std::int64_t tokens, std::int64_t width, double rate) {
  const auto scalars = std::make_shared<StepScalars>();
  scalars->dropout_key = 0x9E3779B97F4A7C15U;
  OpCase op{.op = "dropout", .label = fmt::format("T={} D={} rate={}", tokens, width, rate)};
  op.size = tokens * width > 200 ? CaseSize::kLarge : CaseSize::kSmall;
  op.inputs = {{"x", {tokens, width}}};
  op.constants = {repeated_ids(tokens, 5), repeated_ids(tokens, 8191)};
  op.outputs = {{"y", {tokens, width}}};
  const auto args = [scalars, rate](const OpViews& v, const TensorView& x, const TensorView& y) {
    return DropoutArgs{.x = x,
                       .y = y,
                       .rows = v.constants[0],
                       .places = v.constants[1],
                       .site = 3,
                       .rate = rate,
                       .scalars = scalars.get()};
  };
  op.forward = [args](Backend& backend, const OpViews& v) {
    Stream stream;
    backend.copy({v.inputs[0], v.outputs[0]}, stream);
    backend.dropout(args(v, v.outputs[0], v.outputs[0]), stream);
  };
  op.backward = [args](Backend& backend, const OpViews& v) {
    Stream stream;
    backend.dropout(args(v, v.doutputs[0], v.dinputs[0]), stream);
  };
  return op;
}

}  // namespace

void add_dropout(std::vector<OpCase>& cases) {
  cases.push_back(dropout_case(3, 7, 0.0));
  cases.push_back(dropout_case(4, 13, 0.3));
  cases.push_back(dropout_case(2, 70, 0.5));
  cases.push_back(dropout_case(0, 3, 0.5));
  cases.push_back(dropout_case(3, 5, 0.95));
  cases.push_back(dropout_case(67, 515, 0.1));
  cases.push_back(dropout_case(5, 128, 0.9));
}

// ---- ops without derivative

namespace {

Buffer state_memory(Backend& backend, const UpdateState& state) {
  Buffer memory = backend.allocate(sizeof(UpdateState));
  copy_from_host(&state, memory.view(0, DType::kUInt8, {memory.bytes()}));
  return memory;
}

/// Sums of a step, and what is made of them; `good_steps` before it, of 5.
OpCase prepare_update_case(const char* label, double sum_squares, std::int64_t good_steps) {
  OpCase op{.op = "prepare update", .label = label, .size = CaseSize::kLarge};
  op.outputs = {{"numbers", {7}}};
  op.forward = [=](Backend& backend, const OpViews& v) {
    Stream stream;
    const Buffer memory = state_memory(backend, {.loss_sum = 3.0,
                                                 .sum_squares = sum_squares,
                                                 .loss_scale = 8.0,
                                                 .good_steps = good_steps,
                                                 .updates = 6,
                                                 .skipped = 2});
    backend.prepare_update({.max_norm = 0.75,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .policy = {.growth = 2.0, .backoff = 0.5, .growth_interval = 5},
                            .state = static_cast<UpdateState*>(memory.data())},
                           stream);
    UpdateState state;
    copy_to_host(memory.view(0, DType::kUInt8, {memory.bytes()}), &state);
    std::vector<double> numbers = {state.gradient_factor,
                                   state.bias_correction1,
                                   state.bias_correction2_sqrt,
                                   static_cast<double>(state.is_skipped),
                                   state.loss_scale,
                                   static_cast<double>(state.updates),
                                   static_cast<double>(state.skipped)};
    backend.copy({TensorView(numbers.data(), DType::kFloat64, {7}), v.outputs[0]}, stream);
  };
  return op;
}

OpCase adamw_case(std::int64_t count) {
  const auto scalars = std::make_shared<StepScalars>();
  scalars->lr = 1e-2;
  const Shape shape{count};
  OpCase op{.op = "adamw", .label = fmt::format("{}", count), .size = CaseSize::kLarge};
  op.inputs = {{"param", shape, InputGradient::kNone},
               {"grad", shape, InputGradient::kNone},
               {"m", shape, InputGradient::kNone},
               {"v", shape, InputGradient::kNone, 0.0, 1.0}};
  op.outputs = {{"param", shape}, {"m", shape}, {"v", shape}};
  op.forward = [scalars](Backend& backend, const OpViews& v) {
    Stream stream;
    backend.copy({v.inputs[0], v.outputs[0]}, stream);
    backend.copy({v.inputs[2], v.outputs[1]}, stream);
    backend.copy({v.inputs[3], v.outputs[2]}, stream);
    AdamwArgs args{.param = v.outputs[0], .grad = v.inputs[1], .m = v.outputs[1], .v = v.outputs[2]};
    args.weight_decay = 0.1;
    args.scalars = scalars.get();
    const UpdateState state{
        .gradient_factor = 0.7, .bias_correction1 = 0.271, .bias_correction2_sqrt = 0.0547, .updates = 3};
    const Buffer memory = state_memory(backend, state);
    args.state = static_cast<const UpdateState*>(memory.data());
    backend.adamw(args, stream);
  };
  return op;
}

OpCase sum_case(std::int64_t count) {
  OpCase op{.op = "sum", .label = fmt::format("{}", count), .size = CaseSize::kLarge};
  op.inputs = {{"x", {count}, InputGradient::kNone, 0.0, 1.0}};
  op.outputs = {{"sum", {1}}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream;
    const Buffer sum = backend.allocate(sizeof(double));
    const TensorView result = sum.view(0, DType::kFloat64, {1});
    backend.sum({.x = v.inputs[0], .result = result}, stream);
    backend.copy({result, v.outputs[0]}, stream);
  };
  return op;
}

OpCase sum_squares_case(std::int64_t count) {
  OpCase op{.op = "sum of squares", .label = fmt::format("{}", count), .size = CaseSize::kLarge};
  op.inputs = {{"x", {count}, InputGradient::kNone}};
  op.outputs = {{"sum", {1}}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream;
    const Buffer sum = backend.allocate(sizeof(double));
    const TensorView result = sum.view(0, DType::kFloat64, {1});
    backend.sum_squares({.x = v.inputs[0], .result = result}, stream);
    backend.copy({result, v.outputs[0]}, stream);
  };
  return op;
}

/// y = x rounded to bfloat16.
OpCase bfloat16_case(std::int64_t rows, std::int64_t width) {
  OpCase op{.op = "bfloat16 copy", .label = fmt::format("{}x{}", rows, width), .size = CaseSize::kLarge};
  op.inputs = {{"x", {rows, width}, InputGradient::kNone}};
  op.outputs = {{"y", {rows, width}}};
  op.forward = [](Backend& backend, const OpViews& v) {
    Stream stream;
    const Buffer buffer = backend.allocate(v.inputs[0].bytes());
    const TensorView rounded = buffer.view(0, DType::kBFloat16, v.inputs[0].shape());
    backend.copy({v.inputs[0], rounded}, stream);
    backend.copy({rounded, v.outputs[0]}, stream);
  };
  return op;
}

OpCase random_normal_case(std::int64_t rows, std::int64_t cols) {
  OpCase op{.op = "random normal", .label = fmt::format("{}x{}", rows, cols), .size = CaseSize::kLarge};
  op.outputs = {{"y", {rows, cols}}};
  op.forward = [cols](Backend& backend, const OpViews& v) {
    Stream stream;
    RandomNormalArgs args{.y = v.outputs[0], .row_begin = 3, .col_begin = 2, .global_cols = cols + 5};
    args.standard_deviation = 0.02;
    args.seed = 42;
    args.stream = 7;
    backend.random_normal(args, stream);
  };
  return op;
}

}  // namespace

void add_cases_without_derivative(std::vector<OpCase>& cases) {
  cases.push_back(sum_case(5));
  cases.push_back(sum_case(30011));
  cases.push_back(prepare_update_case("good", 4.0, 1));
  cases.push_back(prepare_update_case("clipped, grows", 400.0, 4));
  cases.push_back(prepare_update_case("overflow", std::numeric_limits<double>::infinity(), 4));
  cases.push_back(adamw_case(7));
  cases.push_back(adamw_case(70001));
  cases.push_back(sum_squares_case(5));
  cases.push_back(sum_squares_case(100003));
  cases.push_back(bfloat16_case(5, 67));
  cases.push_back(random_normal_case(5, 33));
}

}  // namespace caravan::reference

// The worked examples of docs/derivations, computed by the code: inputs and expected values are read from the
// pages, so a page and the code cannot drift apart. Each example runs on the reference and on the CPU
// backend.
#include <catch2/catch.hpp>
#include <deque>
#include <limits>
#include <memory>

#include "caravan/backend/counting_backend.h"
#include "caravan/model/lm_head.h"
#include "caravan/model/rope_table.h"
#include "caravan/optim/adamw.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/simd_table.h"
#include "kernels/reference/reference_backend.h"
#include "support/worked_example.h"

using namespace caravan;
using caravan::test::WorkedExample;

namespace {

/// Memory for the operands of one example, float64.
class Operands {
 public:
  TensorView real(std::vector<double> values, const Shape& shape) {
    CHECK(static_cast<std::int64_t>(values.size()) == shape.numel());
    reals_.push_back(std::move(values));
    return {reals_.back().data(), DType::kFloat64, shape};
  }
  TensorView real(const Shape& shape) {
    return real(std::vector<double>(static_cast<std::size_t>(shape.numel()), 0.0), shape);
  }
  TensorView ints(const std::vector<double>& values) {
    integers_.emplace_back(values.begin(), values.end());
    return {integers_.back().data(), DType::kInt32, {static_cast<std::int64_t>(values.size())}};
  }
  TensorView floats(const std::vector<double>& values) {
    floats_.emplace_back(values.begin(), values.end());
    return {floats_.back().data(), DType::kFloat32, {static_cast<std::int64_t>(values.size())}};
  }

 private:
  std::deque<std::vector<double>> reals_;
  std::deque<std::vector<std::int32_t>> integers_;
  std::deque<std::vector<float>> floats_;
};

std::span<const double> numbers(const TensorView& view) {
  return {view.data<double>(), static_cast<std::size_t>(view.numel())};
}

/// Runs an example on both backends, which must give the page's numbers.
template <class Body>
void on_both_backends(const Body& body) {
  ReferenceBackend reference;
  body(reference);
  const std::unique_ptr<Backend> cpu = make_cpu_backend();
  body(*cpu);
}

// The shape of benchmarks/: 4 rows of 256 tokens.
constexpr std::int64_t kRows = 4;
constexpr std::int64_t kSeq = 256;
constexpr std::int64_t kTokens = kRows * kSeq;
constexpr std::int64_t kHidden = 768;
constexpr std::int64_t kIntermediate = 2048;
constexpr std::int64_t kHeads = 12;
constexpr std::int64_t kKvHeads = 4;
constexpr std::int64_t kHeadDim = 64;

ModelConfig benchmark_config() {
  ModelConfig config;
  config.vocab_size = 8192;
  config.hidden_size = kHidden;
  config.intermediate_size = kIntermediate;
  config.n_layers = 12;
  config.n_heads = kHeads;
  config.n_kv_heads = kKvHeads;
  config.head_dim = kHeadDim;
  return config;
}

/// A float32 tensor without memory.
TensorView of_shape(const Shape& shape) {
  return {nullptr, DType::kFloat32, shape, {DeviceKind::kNone, 0}};
}

/// What `body(backend, stream)` adds to a count.
template <class Body>
WorkCount work_of(const Body& body) {
  CountingBackend counting;
  Stream stream;
  body(counting, stream);
  return counting.work();
}

AttentionShape attention_shape(std::int64_t batch, std::int64_t queries, std::int64_t keys,
                               std::int64_t heads) {
  return {.batch = batch,
          .query_len = queries,
          .key_len = keys,
          .n_heads = heads,
          .n_kv_heads = 1,
          .head_dim = 1,
          .scale = 1.0};
}

}  // namespace

TEST_CASE("rmsnorm.md: the example and its cost are the code's", "[derivations][rmsnorm]") {
  WorkedExample page("rmsnorm.md", "rmsnorm");
  on_both_backends([&](Backend& backend) {
    Operands memory;
    Stream stream;
    const Shape row = {1, 4};
    const TensorView sum = memory.real(row);
    const TensorView y = memory.real(row);
    const TensorView rstd = memory.real({1});
    const TensorView weight = memory.real(page.values("weight"), {4});
    backend.rmsnorm_forward({.x = memory.real(page.values("x"), row),
                             .delta = memory.real(page.values("delta"), row),
                             .sum = sum,
                             .weight = weight,
                             .eps = page.value("eps"),
                             .y = y,
                             .rstd = rstd},
                            stream);
    page.check("sum", numbers(sum));
    page.check("rstd", numbers(rstd));
    page.check("y", numbers(y));
    const TensorView dx = memory.real(row);
    const TensorView dweight = memory.real({4});
    backend.rmsnorm_backward({.dy = memory.real(page.values("dy"), row),
                              .x = sum,
                              .weight = weight,
                              .rstd = rstd,
                              .dx = dx,
                              .dweight = dweight},
                             stream);
    page.check("dx", numbers(dx));
    page.check("dweight", numbers(dweight));
  });
  page.check_all_used();

  WorkedExample cost("rmsnorm.md", "rmsnorm cost");
  const TensorView x = of_shape({kTokens, kHidden});
  const auto forward = work_of([&](Backend& backend, Stream& stream) {
    backend.rmsnorm_forward({.x = x, .delta = x, .sum = x, .weight = {}, .y = x, .rstd = {}}, stream);
  });
  const auto backward = work_of([&](Backend& backend, Stream& stream) {
    backend.rmsnorm_backward({.dy = x, .x = x, .weight = {}, .rstd = {}, .dx = x, .dweight = {}}, stream);
  });
  cost.check("bytes_forward", static_cast<double>(forward.other_bytes));
  cost.check("bytes_backward", static_cast<double>(backward.other_bytes));
  cost.check_all_used();
}

TEST_CASE("rope.md: rotation, frequencies and cost are the code's", "[derivations][rope]") {
  WorkedExample page("rope.md", "rope");
  on_both_backends([&](Backend& backend) {
    Operands memory;
    Stream stream;
    const TensorView x = memory.real(page.values("x"), {1, 4});
    const TensorView dy = memory.real(page.values("dy"), {1, 4});
    std::vector<double> cosines = {1, 1};  // row 0: place 0; row 1: the page's
    std::vector<double> sines = {0, 0};
    cosines.insert(cosines.end(), page.values("cos").begin(), page.values("cos").end());
    sines.insert(sines.end(), page.values("sin").begin(), page.values("sin").end());
    RopeArgs args{.x = x,
                  .positions = memory.ints({1}),
                  .cos = memory.real(cosines, {2, 2}),
                  .sin = memory.real(sines, {2, 2}),
                  .head_dim = 4,
                  .direction = RopeDirection::kForward};
    backend.rope(args, stream);
    page.check("y", numbers(x));
    args.x = dy;
    args.direction = RopeDirection::kBackward;
    backend.rope(args, stream);
    page.check("dx", numbers(dy));
  });
  page.check_all_used();

  WorkedExample scaled("rope.md", "rope frequencies");
  ModelConfig config;
  config.head_dim = static_cast<std::int64_t>(scaled.value("head_dim"));
  config.rope_theta = scaled.value("theta");
  config.rope_scaling =
      RopeScaling{.factor = scaled.value("factor"),
                  .original_max_position = static_cast<std::int64_t>(scaled.value("original_max_position"))};
  scaled.check("freq", rope_frequencies(config));
  scaled.check_all_used();

  WorkedExample llama("rope.md", "rope llama3.2");
  ModelConfig one_b = *model_preset("llama3.2-1b");
  const std::vector<double> frequencies = rope_frequencies(one_b);
  const double factor = one_b.rope_scaling->factor;
  one_b.rope_scaling.reset();
  const std::vector<double> plain = rope_frequencies(one_b);
  double kept = 0;
  double stretched = 0;
  for (std::size_t j = 0; j < plain.size(); ++j) {
    kept += frequencies[j] == plain[j] ? 1 : 0;
    stretched += frequencies[j] == plain[j] / factor ? 1 : 0;
  }
  llama.check("kept", kept);
  llama.check("stretched", stretched);
  llama.check("blended", static_cast<double>(plain.size()) - kept - stretched);
  llama.check_all_used();

  WorkedExample cost("rope.md", "rope cost");
  for (const auto& [name, width] : {std::pair{"bytes_queries", kHeads}, std::pair{"bytes_keys", kKvHeads}}) {
    const auto work = work_of([heads = width](Backend& backend, Stream& stream) {
      backend.rope({.x = of_shape({kTokens, heads * kHeadDim}), .positions = {}, .cos = {}, .sin = {}},
                   stream);
    });
    cost.check(name, static_cast<double>(work.other_bytes));
  }
  cost.check_all_used();
}

TEST_CASE("attention.md: forward and backward of the example are the code's", "[derivations][attention]") {
  WorkedExample page("attention.md", "attention");
  on_both_backends([&](Backend& backend) {
    Operands memory;
    Stream stream;
    AttentionBackwardArgs args{.shape = attention_shape(1, 1, 3, 2),
                               .mask = {.query_index = memory.ints({2}),
                                        .key_index = memory.ints({0, 1, 2}),
                                        .document_start = memory.ints({0})},
                               .q = memory.real(page.values("q"), {1, 2}),
                               .k = memory.real(page.values("k"), {3, 1}),
                               .v = memory.real(page.values("v"), {3, 1}),
                               .o = memory.real({1, 2}),
                               .lse = memory.real({2, 1}),
                               .d_o = memory.real(page.values("d_o"), {1, 2}),
                               .dq = memory.real({1, 2}),
                               .dk = memory.real({3, 1}),
                               .dv = memory.real({3, 1})};
    backend.attention_forward({.shape = args.shape,
                               .mask = args.mask,
                               .q = args.q,
                               .k = args.k,
                               .v = args.v,
                               .o = args.o,
                               .lse = args.lse},
                              stream);
    page.check("lse", numbers(args.lse));
    page.check("o", numbers(args.o));
    backend.attention_backward(args, stream);
    page.check("dq", numbers(args.dq));
    page.check("dk", numbers(args.dk));
    page.check("dv", numbers(args.dv));
  });
  page.check_all_used();
}

// The state after a block of keys is that of attention over the keys so far: lse = m + log l, o = a / l. In
// the CPU backend the three keys stand in three different blocks, between keys of weight 0.
TEST_CASE("attention.md: the online softmax agrees with attention over the keys so far",
          "[derivations][attention]") {
  WorkedExample page("attention.md", "attention");
  WorkedExample online("attention.md", "attention online");
  constexpr auto kSpread = static_cast<std::size_t>(simd::kKeyBlock);
  constexpr double kFar = -1e6;  // exp(ln 2 · kFar) is 0
  std::vector<double> keys(2 * kSpread + 1, kFar);
  std::vector<double> values(2 * kSpread + 1, 1.0);
  for (std::size_t j = 0; j < 3; ++j) {
    keys[j * kSpread] = page.values("k")[j];
    values[j * kSpread] = page.values("v")[j];
  }
  std::vector<double> key_index(keys.size());
  for (std::size_t j = 0; j < keys.size(); ++j) {
    key_index[j] = static_cast<double>(j);
  }
  const auto length = static_cast<std::int64_t>(keys.size());
  // Nine times the same query: fewer would not be packed.
  constexpr std::int64_t kSame = 9;
  on_both_backends([&](Backend& backend) {
    for (std::size_t block = 0; block < 2; ++block) {
      Operands memory;
      Stream stream;
      const std::vector<double> last(kSame, static_cast<double>((block + 1) * kSpread));
      const std::vector<double> query(kSame, page.values("q").front());
      const TensorView o = memory.real({kSame, 1});
      const TensorView lse = memory.real({1, kSame});
      backend.attention_forward({.shape = attention_shape(1, kSame, length, 1),
                                 .mask = {.query_index = memory.ints(last),
                                          .key_index = memory.ints(key_index),
                                          .document_start = memory.ints(std::vector<double>(kSame, 0.0))},
                                 .q = memory.real(query, {kSame, 1}),
                                 .k = memory.real(keys, {length, 1}),
                                 .v = memory.real(values, {length, 1}),
                                 .o = o,
                                 .lse = lse},
                                stream);
      const double m = online.values("m")[block];
      const double l = online.values("l")[block];
      const double a = online.values("a")[block];
      CHECK(numbers(lse).back() == Approx(m + std::log(l)).epsilon(1e-14));
      CHECK(numbers(o).back() == Approx(a / l).epsilon(1e-14));
    }
  });
  online.check_all_used();
}

TEST_CASE("attention.md: its cost is the code's", "[derivations][attention]") {
  WorkedExample cost("attention.md", "attention cost");
  const AttentionShape shape = {.batch = kRows,
                                .query_len = kSeq,
                                .key_len = kSeq,
                                .n_heads = kHeads,
                                .n_kv_heads = kKvHeads,
                                .head_dim = kHeadDim,
                                .scale = 1.0};
  const auto forward = work_of([&](Backend& backend, Stream& stream) {
    AttentionForwardArgs args;
    args.shape = shape;
    backend.attention_forward(args, stream);
  });
  const auto backward = work_of([&](Backend& backend, Stream& stream) {
    AttentionBackwardArgs args;
    args.shape = shape;
    backend.attention_backward(args, stream);
  });
  cost.check("flops_forward", static_cast<double>(forward.attention_flops));
  cost.check("flops_backward", static_cast<double>(backward.attention_flops));
  cost.check("bytes_lse", static_cast<double>(of_shape({kHeads, kTokens}).bytes()));
  cost.check("bytes_p", static_cast<double>(of_shape({kRows * kHeads, kSeq, kSeq}).bytes()));
  cost.check_all_used();
}

TEST_CASE("swiglu.md: the example and its cost are the code's", "[derivations][swiglu]") {
  WorkedExample page("swiglu.md", "swiglu");
  on_both_backends([&](Backend& backend) {
    Operands memory;
    Stream stream;
    const Shape row = {1, 3};
    const TensorView gate = memory.real(page.values("gate"), row);
    const TensorView up = memory.real(page.values("up"), row);
    const TensorView h = memory.real(row);
    backend.swiglu_forward({.gate = gate, .up = up, .h = h}, stream);
    page.check("h", numbers(h));
    // In place, as the page says it may be.
    backend.swiglu_backward(
        {.dh = memory.real(page.values("dh"), row), .gate = gate, .up = up, .dgate = gate, .dup = up},
        stream);
    page.check("dgate", numbers(gate));
    page.check("dup", numbers(up));
  });
  page.check_all_used();

  WorkedExample cost("swiglu.md", "swiglu cost");
  const TensorView x = of_shape({kTokens, kIntermediate});
  const auto forward = work_of([&](Backend& backend, Stream& stream) {
    backend.swiglu_forward({.gate = x, .up = x, .h = x}, stream);
  });
  const auto backward = work_of([&](Backend& backend, Stream& stream) {
    backend.swiglu_backward({.dh = x, .gate = x, .up = x, .dgate = x, .dup = x}, stream);
  });
  cost.check("bytes_forward", static_cast<double>(forward.other_bytes));
  cost.check("bytes_backward", static_cast<double>(backward.other_bytes));
  cost.check_all_used();
}

TEST_CASE("cross_entropy.md: loss, gradients and the divided vocabulary are the code's",
          "[derivations][cross_entropy]") {
  WorkedExample page("cross_entropy.md", "cross entropy");
  WorkedExample ranks("cross_entropy.md", "cross entropy ranks");
  on_both_backends([&](Backend& backend) {
    Operands memory;
    Stream stream;
    const TensorView x = memory.real(page.values("x"), {3, 2});
    const TensorView w = memory.real(page.values("W"), {3, 2});
    const TensorView targets = memory.ints(page.values("targets"));
    const TensorView weights = memory.floats(page.values("weights"));
    const TensorView logits = memory.real({3, 3});
    const TensorView row_max = memory.real({3});
    const TensorView row_sum = memory.real({3});
    const TensorView target_logit = memory.real({3});
    const TensorView lse = memory.real({3});
    const TensorView losses = memory.real({3});
    const TensorView dx = memory.real({3, 2});
    const TensorView dw = memory.real({3, 2});
    StepScalars scalars;
    scalars.inv_valid_tokens = page.value("inv_valid");

    backend.matmul_nt({.a = x, .b = DenseWeight{w}, .c = logits}, stream);
    page.check("logits", numbers(logits));
    for (std::int64_t rank = 0; rank < 2; ++rank) {  // columns {0, 1} and {2} of row 0
      const std::int64_t begin = 2 * rank;
      const std::int64_t width = 2 - rank;
      const auto columns =
          numbers(logits).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(width));
      const TensorView part = memory.real({columns.begin(), columns.end()}, {1, width});
      backend.cross_entropy_stats({.logits = part,
                                   .targets = targets.rows(0, 1),
                                   .vocab_begin = begin,
                                   .row_max = row_max.rows(rank, rank + 1),
                                   .row_sum = row_sum.rows(rank, rank + 1),
                                   .target_logit = target_logit.rows(rank, rank + 1)},
                                  stream);
    }
    ranks.check("row_max", numbers(row_max.rows(0, 2)));
    ranks.check("row_sum", numbers(row_sum.rows(0, 2)));
    ranks.check("target_logit", numbers(target_logit.rows(0, 2)));

    backend.cross_entropy_stats({.logits = logits,
                                 .targets = targets,
                                 .row_max = row_max,
                                 .row_sum = row_sum,
                                 .target_logit = target_logit},
                                stream);
    page.check("row_max", numbers(row_max));
    backend.cross_entropy_loss({.row_max = row_max,
                                .row_sum = row_sum,
                                .target_logit = target_logit,
                                .target_weights = weights,
                                .lse = lse,
                                .losses = losses},
                               stream);
    page.check("lse", numbers(lse));
    page.check("losses", numbers(losses));
    CHECK(numbers(losses).back() == 0.0);
    const TensorView again = memory.real({numbers(logits).begin(), numbers(logits).end()}, {3, 3});
    backend.cross_entropy_backward(
        {.logits = logits, .targets = targets, .target_weights = weights, .lse = lse, .scalars = &scalars},
        stream);
    page.check("dlogits", numbers(logits));
    const TensorView losses_at_once = memory.real({3});
    backend.cross_entropy({.logits = again,
                           .targets = targets,
                           .target_weights = weights,
                           .losses = losses_at_once,
                           .scalars = &scalars},
                          stream);
    page.check("losses", numbers(losses_at_once));
    page.check("dlogits", numbers(again));
    backend.matmul_nn({.a = logits, .b = DenseWeight{w}, .c = dx}, stream);
    backend.matmul_tn({.a = logits, .b = x, .c = dw}, stream);
    page.check("dx", numbers(dx));
    page.check("dW", numbers(dw));
  });
  page.check_all_used();
  ranks.check_all_used();
}

TEST_CASE("cross_entropy.md: the size of a chunk is the code's", "[derivations][cross_entropy]") {
  WorkedExample cost("cross_entropy.md", "cross entropy cost");
  const std::int64_t vocab = model_preset("llama3.2-1b")->vocab_size;
  const std::int64_t chunk = LmHead::chunk_tokens(vocab, kTokens, DeviceKind::kCpu, DType::kFloat32);
  cost.check("chunk_llama3", static_cast<double>(chunk));
  cost.check("bytes_chunk", static_cast<double>(of_shape({chunk, vocab}).bytes()));
  cost.check("bytes_whole", static_cast<double>(of_shape({kTokens, vocab}).bytes()));
  const auto work = work_of([&](Backend& backend, Stream& stream) {
    backend.matmul_nt({.a = of_shape({kTokens, kHidden}),
                       .b = DenseWeight{of_shape({vocab, kHidden})},
                       .c = of_shape({kTokens, vocab})},
                      stream);
  });
  cost.check("flops_product", static_cast<double>(work.matmul_flops));
  cost.check_all_used();
  CHECK(LmHead::chunk_tokens(benchmark_config().vocab_size, kTokens, DeviceKind::kCpu, DType::kFloat32) ==
        kTokens);
}

namespace {

struct TwoParameters {
  explicit TwoParameters(Backend& backend_in)
      : backend(backend_in),
        parameters({ParameterSpec{.name = "p", .shape = {2}, .shard = {}}}, {}, DType::kFloat64, backend,
                   Gradients::kAllocated),
        scratch("scratch", allocate_host(64)) {}
  Context context() { return {backend, stream, scratch, scalars, DType::kFloat64}; }
  static void set(const TensorView& view, const std::vector<double>& values) {
    std::copy(values.begin(), values.end(), view.data<double>());
  }
  Backend& backend;
  ParameterSet parameters;
  Arena scratch;
  Stream stream;
  StepScalars scalars;
};

AdamwOptions options_of(WorkedExample& page) {
  return {.weight_decay = page.value("weight_decay"),
          .beta1 = page.value("beta1"),
          .beta2 = page.value("beta2"),
          .eps = page.value("eps")};
}

}  // namespace

TEST_CASE("adamw.md: two steps with and without clipping are the code's", "[derivations][adamw]") {
  WorkedExample page("adamw.md", "adamw");
  WorkedExample unclipped("adamw.md", "adamw without clipping");
  on_both_backends([&](Backend& backend) {
    for (const bool clips : {true, false}) {
      TwoParameters two(backend);
      Parameter& p = two.parameters.at("p");
      AdamwOptions options = options_of(page);
      if (clips) {
        options.clip_norm = page.value("clip_norm");
      }
      Adamw optimizer(whole_shards(two.parameters), options, DType::kFloat64, backend);
      Context ctx = two.context();
      ctx.scalars.lr = page.value("lr");
      TwoParameters::set(p.stored_value(), page.values("param0"));
      for (const std::string step : {"1", "2"}) {
        TwoParameters::set(p.stored_grad(), page.values("grad" + step));
        optimizer.begin(ctx);
        optimizer.add_squares(ctx);
        optimizer.update(ctx);
        const UpdateState& update = optimizer.finish();
        const auto state = numbers(optimizer.state());
        if (clips) {
          page.check("norm" + step, update.grad_norm);
          page.check("clip" + step, update.gradient_factor);
          page.check("m" + step, state.subspan(0, 2));
          page.check("v" + step, state.subspan(2, 2));
          page.check("param" + step, numbers(p.stored_value()));
        } else if (step == "2") {
          unclipped.check("m2", state.subspan(0, 2));
          unclipped.check("v2", state.subspan(2, 2));
          unclipped.check("param2", numbers(p.stored_value()));
        } else {
          page.check("param1", numbers(p.stored_value()));  // the first step does not depend on the norm
        }
      }
    }
  });
  page.check_all_used();
  unclipped.check_all_used();
}

TEST_CASE("adamw.md: the bytes of a step are the code's", "[derivations][adamw]") {
  WorkedExample cost("adamw.md", "adamw cost");
  const std::int64_t count = parameter_count(benchmark_config());
  const TensorView all = of_shape({count});
  const auto work = work_of([&](Backend& backend, Stream& stream) {
    backend.adamw({.param = all, .grad = all, .m = all, .v = all}, stream);
  });
  cost.check("parameters", static_cast<double>(count));
  cost.check("bytes", static_cast<double>(work.other_bytes));
  cost.check_all_used();
}

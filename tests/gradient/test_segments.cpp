// Every segment of a small Llama, and the whole model, against complex-step derivatives: with f analytic,
// Im f(x + i·h·r) / h is the directional derivative along r up to O(h²), without cancellation, so h = 1e-100
// gives it to rounding (Squire and Trapp 1998). The backward pass runs in float64, the perturbed forward in
// complex128.
#include <catch2/catch.hpp>
#include <cmath>
#include <complex>

#include "caravan/core/counter_rng.h"
#include "caravan/model/llama.h"
#include "caravan/model/local_ports.h"
#include "caravan/ops/elementwise.h"
#include "kernels/reference/reference_backend.h"

using namespace caravan;
using Complex = std::complex<double>;

namespace {

constexpr double kStep = 1e-100;
constexpr double kTolerance = 1e-12;  // relative to the sum of the magnitudes that enter the derivative

ModelConfig small_config(bool tied) {
  ModelConfig config;
  config.vocab_size = 19;
  config.hidden_size = 12;
  config.intermediate_size = 10;
  config.n_layers = 2;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 6;  // not hidden_size / n_heads
  config.rope_scaling = RopeScaling{32.0, 1.0, 4.0, 64};
  config.tie_embeddings = tied;
  return config;
}

/// Two rows of five tokens, two documents in the second row, one target that does not count.
struct Tokens {
  std::vector<std::int32_t> ids = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
  std::vector<std::int32_t> targets = {1, 4, 1, 5, 9, 2, 6, 5, 3, 18};
  std::vector<float> weights = {1, 1, 1, 0, 1, 1, 1, 1, 1, 1};
  std::vector<std::int32_t> index = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4};
  std::vector<std::int32_t> start = {0, 0, 0, 0, 0, 0, 0, 0, 3, 3};
  std::vector<std::int32_t> positions = {0, 1, 2, 3, 4, 0, 1, 2, 0, 1};
  std::vector<std::int32_t> rows = {6, 6, 6, 6, 6, 7, 7, 7, 7, 7};

  TokenBatch view() {
    const Shape t = {10};
    return {.batch = 2,
            .seq_len = 5,
            .ids = {ids.data(), DType::kInt32, t},
            .targets = {targets.data(), DType::kInt32, t},
            .target_weights = {weights.data(), DType::kFloat32, t},
            .index = {index.data(), DType::kInt32, t},
            .document_start = {start.data(), DType::kInt32, t},
            .positions = {positions.data(), DType::kInt32, t},
            .rows = {rows.data(), DType::kInt32, t}};
  }
};

/// A model in one dtype with everything needed to run it.
struct Bench {
  explicit Bench(DType dtype, bool tied, double output_factor, double dropout = 0.0)
      : boundary(output_factor),
        model(small_config(tied), {.dtype = dtype, .positions = 8}, backend,
              {.boundary = boundary, .attention = attention, .vocab = vocab}),
        store(model.parameters()),
        saved_arena("saved", allocate_host(1 << 20)),
        scratch("scratch", allocate_host(1 << 20)),
        ctx{backend, stream, scratch, scalars, dtype} {
    scalars.inv_valid_tokens = 1.0 / 9.0;
    scalars.dropout_key = 0x0123456789ABCDEFU;
    ctx.dropout = dropout;
    std::uint64_t salt = 100;
    for (Parameter& parameter : model.parameters().all()) {
      fill(parameter.stored_value(), salt++, 0.5);
    }
  }

  /// Random values, the same numbers in either dtype.
  static void fill(const TensorView& view, std::uint64_t stream, double scale) {
    const CounterRng rng(7, stream);
    for (std::int64_t i = 0; i < view.numel(); ++i) {
      const double value = scale * rng.normal(static_cast<std::uint64_t>(i));
      if (view.dtype() == DType::kFloat64) {
        view.data<double>()[i] = value;
      } else {
        view.data<Complex>()[i] = value;
      }
    }
  }

  ReferenceBackend backend;
  LocalBoundary boundary;
  LocalAttention attention;
  LocalVocab vocab;
  Llama model;
  ReplicatedStore store;
  Arena saved_arena;
  Arena scratch;
  Stream stream;
  StepScalars scalars;
  Context ctx;
};

constexpr std::uint64_t kDirection = 900;
constexpr std::uint64_t kCotangent = 901;
constexpr std::uint64_t kInput = 902;
constexpr std::uint64_t kDelta = 903;

void perturb(const TensorView& view) {
  const CounterRng rng(7, kDirection);
  for (std::int64_t i = 0; i < view.numel(); ++i) {
    view.data<Complex>()[i] += Complex(0.0, kStep * rng.normal(static_cast<std::uint64_t>(i)));
  }
}

struct Dot {
  double value = 0.0;
  double magnitude = 0.0;
};

/// <gradient, direction>
Dot along_direction(const TensorView& gradient) {
  const CounterRng rng(7, kDirection);
  Dot dot;
  for (std::int64_t i = 0; i < gradient.numel(); ++i) {
    const double term = gradient.data<double>()[i] * rng.normal(static_cast<std::uint64_t>(i));
    dot.value += term;
    dot.magnitude += std::abs(term);
  }
  return dot;
}

void check_close(double complex_step, const Dot& dot) {
  REQUIRE(dot.magnitude > 0.0);
  CHECK(std::abs(complex_step - dot.value) <= kTolerance * std::max(dot.magnitude, std::abs(complex_step)));
}

/// Objective of a segment test: Σ cotangent · (x + delta) after the segment.
double segment_objective_imaginary(Bench& bench, const Segment& segment, TensorView perturbed,
                                   bool perturb_input) {
  Tokens tokens;
  const TokenBatch batch = tokens.view();
  const ArenaScope scope(bench.scratch);
  const Shape shape = {10, bench.model.config().hidden_size};
  ResidualStream stream{bench.ctx.allocate("x", shape), bench.ctx.allocate("delta", shape), true};
  Bench::fill(stream.x, kInput, 1.0);
  Bench::fill(stream.delta, kDelta, 1.0);
  perturb(perturb_input ? stream.delta : perturbed);
  const auto saved = segment.make_saved();
  const std::vector<int> groups = segment.groups();
  const Lease held(bench.store, groups);
  saved->begin(nullptr, SavePolicy::inference());
  segment.forward(bench.ctx, batch, stream, *saved);
  Complex total = 0.0;
  const CounterRng rng(7, kCotangent);
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    const Complex out =
        stream.x.data<Complex>()[i] + (stream.has_delta ? stream.delta.data<Complex>()[i] : 0.0);
    total += out * rng.normal(static_cast<std::uint64_t>(i));
  }
  saved->finish();
  return total.imag() / kStep;
}

/// Backward of one segment in float64 with the cotangent above; returns dL/d(input stream).
std::vector<double> segment_backward(Bench& bench, const Segment& segment, SavePolicy policy) {
  Tokens tokens;
  const TokenBatch batch = tokens.view();
  const ArenaScope scope(bench.scratch);
  const Shape shape = {10, bench.model.config().hidden_size};
  ResidualStream stream{bench.ctx.allocate("x", shape), bench.ctx.allocate("delta", shape), true};
  Bench::fill(stream.x, kInput, 1.0);
  Bench::fill(stream.delta, kDelta, 1.0);
  const std::vector<int> groups = segment.groups();
  const Lease lease(bench.store, groups);
  const auto saved = segment.make_saved();
  saved->begin(&bench.saved_arena, policy);
  {
    const ArenaScope call(bench.scratch);
    segment.forward(bench.ctx, batch, stream, *saved);
    saved->forget_scratch();
  }
  const TensorView g = bench.ctx.allocate("g", shape);
  Bench::fill(g, kCotangent, 1.0);
  for (Parameter& parameter : bench.model.parameters().all()) {
    zero(bench.ctx, {.x = parameter.stored_grad()});
  }
  segment.backward(bench.ctx, batch, g, *saved);
  saved->finish();
  CHECK(bench.saved_arena.mark() == 0);
  return {g.data<double>(), g.data<double>() + g.numel()};
}

Complex model_loss(Bench& bench) {
  Tokens tokens;
  const TokenBatch batch = tokens.view();
  const ArenaScope scope(bench.scratch);
  const Shape shape = {10, bench.model.config().hidden_size};
  ResidualStream stream{bench.ctx.allocate("x", shape), bench.ctx.allocate("delta", shape)};
  const TensorView losses = bench.ctx.allocate("losses", {10});
  for (const auto& segment : bench.model.segments()) {
    const auto saved = segment->make_saved();
    saved->begin(nullptr, SavePolicy::inference());
    const std::vector<int> groups = segment->groups();
    const Lease lease(bench.store, groups);
    segment->forward(bench.ctx, batch, stream, *saved);
    saved->finish();
  }
  const std::vector<int> groups = bench.model.head().groups();
  const Lease lease(bench.store, groups);
  bench.model.head().loss(bench.ctx, batch, stream, losses);
  Complex total = 0.0;
  for (std::int64_t i = 0; i < losses.numel(); ++i) {
    total += losses.data<Complex>()[i];
  }
  return total * bench.scalars.inv_valid_tokens;
}

}  // namespace

TEST_CASE("every segment's backward equals the complex-step derivative", "[gradient][segment]") {
  const double output_factor = GENERATE(1.0, 3.0);
  const double dropout = GENERATE(0.0, 0.4);
  const bool tied = false;
  Bench real(DType::kFloat64, tied, output_factor, dropout);
  for (std::size_t s = 0; s < real.model.segments().size(); ++s) {
    const Segment& segment = *real.model.segments()[s];
    CAPTURE(s, output_factor, dropout);
    const std::vector<double> g = segment_backward(real, segment, SavePolicy::none());
    if (s > 0) {  // the embedding does not read the stream
      Bench complex(DType::kComplex128, tied, output_factor, dropout);
      std::vector<double> values = g;
      check_close(segment_objective_imaginary(complex, *complex.model.segments()[s], {}, true),
                  along_direction(TensorView(values.data(), DType::kFloat64, {10 * 12})));
    }
    int tested = 0;
    for (Parameter& parameter : real.model.parameters().all()) {
      if (parameter.spec().group != segment.groups().front()) {
        continue;
      }
      CAPTURE(parameter.name());
      Bench complex(DType::kComplex128, tied, output_factor, dropout);
      const TensorView perturbed = complex.model.parameters().at(parameter.name()).stored_value();
      check_close(segment_objective_imaginary(complex, *complex.model.segments()[s], perturbed, false),
                  along_direction(parameter.stored_grad()));
      ++tested;
    }
    CHECK(tested == (s == 0 ? 1 : (s % 2 == 1 ? 5 : 4)));
  }
}

TEST_CASE("dropping saved tensors and computing them again changes no bit of a gradient",
          "[gradient][saved]") {
  Bench bench(DType::kFloat64, false, 1.0, GENERATE(0.0, 0.4));
  for (const auto& segment : bench.model.segments()) {
    std::vector<std::vector<double>> results;
    for (const SavePolicy policy : {SavePolicy::none(), SavePolicy::selective(), SavePolicy::full()}) {
      std::vector<double> all = segment_backward(bench, *segment, policy);
      for (Parameter& parameter : bench.model.parameters().all()) {
        const TensorView grad = parameter.stored_grad();
        all.insert(all.end(), grad.data<double>(), grad.data<double>() + grad.numel());
      }
      results.push_back(std::move(all));
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
  }
}

TEST_CASE("every parameter's gradient of the whole model equals the complex-step derivative",
          "[gradient][model]") {
  const bool tied = GENERATE(false, true);
  const double dropout = GENERATE(0.0, 0.4);
  Bench real(DType::kFloat64, tied, 1.0, dropout);
  Tokens tokens;
  const TokenBatch batch = tokens.view();
  {
    const Shape shape = {10, real.model.config().hidden_size};
    ResidualStream stream{{}, real.ctx.allocate("delta", shape)};
    const TensorView g = real.ctx.allocate("g", shape);
    const TensorView losses = real.ctx.allocate("losses", {10});
    std::vector<std::unique_ptr<Saved>> saved;
    for (const auto& segment : real.model.segments()) {
      const std::vector<int> groups = segment->groups();
      const Lease lease(real.store, groups);
      saved.push_back(segment->make_saved());
      saved.back()->begin(&real.saved_arena, SavePolicy::selective());
      const ArenaScope call(real.scratch);
      segment->forward(real.ctx, batch, stream, *saved.back());
      saved.back()->forget_scratch();
    }
    const std::vector<int> head = real.model.head().groups();
    const Lease lease(real.store, head);
    real.model.head().loss_and_backward(real.ctx, batch, stream, losses, g);
    for (std::size_t s = saved.size(); s-- > 0;) {
      const std::vector<int> groups = real.model.segments()[s]->groups();
      const Lease segment_lease(real.store, groups);
      real.model.segments()[s]->backward(real.ctx, batch, g, *saved[s]);
      saved[s]->finish();
    }
    CHECK(losses.data<double>()[3] == 0.0);  // its target does not count
  }
  for (Parameter& parameter : real.model.parameters().all()) {
    CAPTURE(parameter.name(), tied, dropout);
    Bench complex(DType::kComplex128, tied, 1.0, dropout);
    perturb(complex.model.parameters().at(parameter.name()).stored_value());
    check_close(model_loss(complex).imag() / kStep, along_direction(parameter.stored_grad()));
  }
}

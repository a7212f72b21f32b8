// RANKS 1 2 4 8
// Attention over rows whose tokens are divided over ranks, by gathering and by a ring, against one rank that
// has them all.
#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <numeric>

#include "caravan/backend/counting_backend.h"
#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/model/local_ports.h"
#include "caravan/parallel/gather_attention.h"
#include "caravan/parallel/ring_attention.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/scalar.h"
#include "tests/support/adjoint.h"
#include "tests/support/port_model.h"
#include "tests/support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// Of the largest value; scores up to 10 and sums of at most 64 terms.
constexpr double kFloat64Tolerance = 1e-12;
constexpr double kFloat32Tolerance = 1e-5;
constexpr double kAdjointTolerance = 1e-12;

constexpr std::int64_t kRows = 2;
constexpr std::int64_t kLength = 64;  // of a row, all ranks together
constexpr std::int64_t kHeads = 4;
constexpr std::int64_t kKvHeads = 2;
constexpr std::int64_t kHeadDim = 6;

/// Which tokens of each row a rank has, in which order.
using Places = std::vector<std::int64_t>;
enum class Order { kContiguous, kZigZag, kScattered };

Places places_of(Order order, std::int64_t rank, std::int64_t ranks) {
  Places all(kLength);
  std::iota(all.begin(), all.end(), 0);
  const std::int64_t share = kLength / ranks;
  if (order == Order::kZigZag) {
    const std::int64_t chunk = share / 2;
    Places mine;
    for (const std::int64_t begin : {rank * chunk, kLength - (rank + 1) * chunk}) {
      mine.insert(mine.end(), all.begin() + begin, all.begin() + begin + chunk);
    }
    return mine;
  }
  if (order == Order::kScattered) {  // neighbours on other ranks, and none in order
    for (std::int64_t i = 0; i < kLength; ++i) {
      all[static_cast<std::size_t>(i)] = i * 37 % kLength;
    }
  }
  return {all.begin() + rank * share, all.begin() + (rank + 1) * share};
}

/// How one rank's (or all) q, k, v, d_o and the results are named and shaped.
struct Result {
  std::vector<double> o, lse, dq, dk, dv;
};

template <class T>
struct Bench {
  explicit Bench(Backend& backend_used)
      : backend(backend_used), ctx{backend, stream, scratch, scalars, DTypeOf<T>::kValue} {}

  TensorView tensor(std::int64_t tokens, std::int64_t width) { return ctx.allocate("test", {tokens, width}); }

  Backend& backend;
  Stream stream;
  StepScalars scalars;
  Arena scratch{"scratch", allocate_host(4 << 20)};
  Context ctx;
};

/// The value of element (row, place, column) whatever rank has it.
double element(std::uint64_t tensor, std::int64_t row, std::int64_t place, std::int64_t column,
               std::int64_t width) {
  const CounterRng rng(17, tensor);
  return rng.normal(static_cast<std::uint64_t>((row * kLength + place) * width + column));
}

template <class T>
TensorView filled(Bench<T>& bench, const TokenRows& tokens, std::uint64_t tensor, std::int64_t width) {
  const TensorView view = bench.tensor(tokens.rows * tokens.seq_len, width);
  for (std::int64_t t = 0; t < view.dim(0); ++t) {
    for (std::int64_t c = 0; c < width; ++c) {
      const std::int64_t place = tokens.index[static_cast<std::size_t>(t)];
      view.data<T>()[t * width + c] = static_cast<T>(element(tensor, t / tokens.seq_len, place, c, width));
    }
  }
  return view;
}

template <class T>
std::vector<double> numbers(const TensorView& view) {
  std::vector<double> values;
  std::transform(view.data<T>(), view.data<T>() + view.numel(), std::back_inserter(values),
                 [](const T& value) { return caravan::reference::real_part(value); });
  return values;
}

AttentionCall call_of(const TokenBatch& batch) {
  return {.batch = batch, .layer = 0, .n_heads = kHeads, .n_kv_heads = kKvHeads, .head_dim = kHeadDim};
}

template <class T>
Result run(Backend& backend, const AttentionCore& core, TokenRows& tokens) {
  Bench<T> bench(backend);
  const TokenBatch batch = tokens.view();
  const AttentionCall call = call_of(batch);
  const std::int64_t width = kHeads * kHeadDim;
  const std::int64_t kv_width = kKvHeads * kHeadDim;
  AttentionCore::BackwardArgs args;
  args.q = filled(bench, tokens, 1, width);
  args.k = filled(bench, tokens, 2, kv_width);
  args.v = filled(bench, tokens, 3, kv_width);
  args.d_o = filled(bench, tokens, 4, width);
  args.o = bench.tensor(batch.n_tokens(), width);
  args.lse = bench.tensor(kHeads, batch.n_tokens());
  args.dq = bench.tensor(batch.n_tokens(), width);
  args.dk = bench.tensor(batch.n_tokens(), kv_width);
  args.dv = bench.tensor(batch.n_tokens(), kv_width);
  const Arena::Mark before = bench.scratch.mark();
  core.forward(bench.ctx, call, args.q, args.k, args.v, args.o, args.lse);
  core.backward(bench.ctx, call, args);
  CHECK(bench.scratch.mark() == before);
  return {numbers<T>(args.o), numbers<T>(args.lse), numbers<T>(args.dq), numbers<T>(args.dk),
          numbers<T>(args.dv)};
}

/// The rows of a [kRows · kLength, width] tensor that a rank has.
std::vector<double> part(const std::vector<double>& whole, const Places& places, std::int64_t width) {
  std::vector<double> result;
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (const std::int64_t place : places) {
      const auto begin = whole.begin() + (row * kLength + place) * width;
      result.insert(result.end(), begin, begin + width);
    }
  }
  return result;
}

/// The same of a [heads, kRows · kLength] tensor.
std::vector<double> part_of_statistic(const std::vector<double>& whole, const Places& places) {
  std::vector<double> result;
  for (std::int64_t head = 0; head < kHeads; ++head) {
    const auto begin = whole.begin() + head * kRows * kLength;
    const std::vector<double> one = part({begin, begin + kRows * kLength}, places, 1);
    result.insert(result.end(), one.begin(), one.end());
  }
  return result;
}

/// Infinite values must be equal; compares the others.
double statistic_error(std::vector<double> actual, std::vector<double> expected) {
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::isinf(expected[i]) && actual[i] == expected[i]) {
      actual[i] = 0.0;
      expected[i] = 0.0;
    }
  }
  return relative_error(actual, expected);
}

struct CoreKind {
  ContextExchange exchange;
  std::function<std::unique_ptr<AttentionCore>(Communicator&)> make;
};

std::vector<CoreKind> both_cores() {
  return {{ContextExchange::kGather, [](Communicator& cp) { return std::make_unique<GatherAttention>(cp); }},
          {ContextExchange::kRing, [](Communicator& cp) { return std::make_unique<RingAttention>(cp); }}};
}

/// What a ring's rank has of the rows.
TokenRows ring_part(Communicator& cp, const TokenRows& rows, const Places& places) {
  TokenRows mine = rows.take(places);
  mine.order_keys(cp, ContextExchange::kRing);
  return mine;
}

template <class T>
void check(Backend& backend, TokenRows rows, Order order, double tolerance) {
  const auto cp = MpiCommunicator::over_world();
  const Places places = places_of(order, cp->rank(), cp->size());
  TokenRows mine = rows.take(places);
  const Result whole = run<T>(backend, LocalAttention(), rows);
  for (const CoreKind& kind : both_cores()) {
    mine.order_keys(*cp, kind.exchange);
    const Result actual = run<T>(backend, *kind.make(*cp), mine);
    CHECK(relative_error(actual.o, part(whole.o, places, kHeads * kHeadDim)) <= tolerance);
    CHECK(statistic_error(actual.lse, part_of_statistic(whole.lse, places)) <= tolerance);
    CHECK(relative_error(actual.dq, part(whole.dq, places, kHeads * kHeadDim)) <= tolerance);
    CHECK(relative_error(actual.dk, part(whole.dk, places, kKvHeads * kHeadDim)) <= tolerance);
    CHECK(relative_error(actual.dv, part(whole.dv, places, kKvHeads * kHeadDim)) <= tolerance);
  }
}

/// Documents of irregular lengths that cross the ranks' borders.
TokenRows packed_rows() {
  TokenRows tokens(kRows, kLength);
  for (std::int64_t row = 0; row < kRows; ++row) {
    std::int64_t start = 0;
    for (std::int64_t s = 0; s < kLength; ++s) {
      if (s - start >= 5 + row + start % 13) {
        start = s;
      }
      tokens.document_start[static_cast<std::size_t>(row * kLength + s)] = static_cast<std::int32_t>(start);
    }
  }
  return tokens;
}

/// Only the first `valid` tokens of a row see anything.
TokenRows blind_after(std::int64_t valid) {
  TokenRows tokens(kRows, kLength);
  for (std::int64_t i = 0; i < kRows * kLength; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (i % kLength >= valid) {
      tokens.document_start[at] = tokens.index[at] + 1;
    }
  }
  return tokens;
}

/// Im of <o, y> along x in complex128, and <x, J* y>, of one core.
void check_adjoint(Communicator& cp, const AttentionCore& core, TokenRows mine) {
  using Complex = std::complex<double>;
  constexpr double kStep = 1e-100;
  ReferenceBackend backend;
  const Result real = run<double>(backend, core, mine);  // its d_o is y

  Bench<Complex> bench(backend);
  const TokenBatch batch = mine.view();
  std::array<TensorView, 3> inputs;
  std::vector<double> directions;
  for (std::uint64_t i = 0; i < 3; ++i) {
    inputs[i] = filled(bench, mine, 1 + i, (i == 0 ? kHeads : kKvHeads) * kHeadDim);
    const auto x = random_numbers(cp, Spread::kEachRankItsOwn, 20 + i, inputs[i].numel());
    for (std::size_t e = 0; e < x.size(); ++e) {
      inputs[i].data<Complex>()[e] += Complex(0.0, kStep * x[e]);
    }
    directions.insert(directions.end(), x.begin(), x.end());
  }
  const TensorView y = filled(bench, mine, 4, kHeads * kHeadDim);
  const TensorView o = bench.tensor(batch.n_tokens(), kHeads * kHeadDim);
  const TensorView lse = bench.tensor(kHeads, batch.n_tokens());
  core.forward(bench.ctx, call_of(batch), inputs[0], inputs[1], inputs[2], o, lse);
  std::vector<double> along;
  std::transform(o.data<Complex>(), o.data<Complex>() + o.numel(), std::back_inserter(along),
                 [&](const Complex& value) { return value.imag() / kStep; });
  std::vector<double> gradients = real.dq;
  gradients.insert(gradients.end(), real.dk.begin(), real.dk.end());
  gradients.insert(gradients.end(), real.dv.begin(), real.dv.end());
  const Product left = inner_product(cp, Spread::kEachRankItsOwn, along, numbers<Complex>(y));
  const Product right = inner_product(cp, Spread::kEachRankItsOwn, directions, gradients);
  CHECK(adjoint_error(left, right) <= kAdjointTolerance);
  CHECK(left.magnitude > 1.0);
}

}  // namespace

TEST_CASE("gathered and ring attention equal attention on one rank", "[parallel][context]") {
  const auto cpu = make_cpu_backend();
  ReferenceBackend reference;
  for (const Order order : {Order::kContiguous, Order::kZigZag, Order::kScattered}) {
    INFO("order " << static_cast<int>(order));
    check<double>(*cpu, TokenRows(kRows, kLength), order, kFloat64Tolerance);
    check<double>(*cpu, packed_rows(), order, kFloat64Tolerance);
    check<double>(reference, packed_rows(), order, kFloat64Tolerance);
    check<float>(*cpu, packed_rows(), order, kFloat32Tolerance);
  }
}

TEST_CASE("ranks whose tokens see nothing give zeros and no NaN", "[parallel][context][blind]") {
  const auto cpu = make_cpu_backend();
  for (const std::int64_t valid : {0, 5, 11, 40}) {
    for (const Order order : {Order::kContiguous, Order::kZigZag, Order::kScattered}) {
      INFO("order " << static_cast<int>(order) << ", " << valid << " tokens see something");
      check<double>(*cpu, blind_after(valid), order, kFloat64Tolerance);
    }
  }
}

TEST_CASE("the backward pass of each core is the adjoint of its derivative", "[parallel][context][adjoint]") {
  const auto cp = MpiCommunicator::over_world();
  for (const Order order : {Order::kZigZag, Order::kScattered}) {
    TokenRows mine = packed_rows().take(places_of(order, cp->rank(), cp->size()));
    for (const CoreKind& kind : both_cores()) {
      mine.order_keys(*cp, kind.exchange);
      check_adjoint(*cp, *kind.make(*cp), mine);
    }
  }
}

TEST_CASE("the ring computes nothing with keys that no query here sees", "[parallel][context][ring]") {
  const auto cp = MpiCommunicator::over_world();
  const auto cpu = make_cpu_backend();
  const auto count = [&](const TokenRows& rows, Order order) {
    TokenRows mine = ring_part(*cp, rows, places_of(order, cp->rank(), cp->size()));
    int forwards = 0;
    int backwards = 0;
    RecordingBackend recording(*cpu, [&](const std::string& op) {
      forwards += op == "attention_forward" ? 1 : 0;
      backwards += op == "attention_backward" ? 1 : 0;
    });
    run<double>(recording, RingAttention(*cp), mine);
    CHECK(forwards == backwards);
    return forwards;
  };
  // In order of tokens rank r sees the ranks up to its own; in zig-zag order all see all.
  CHECK(count(TokenRows(kRows, kLength), Order::kContiguous) == (cp->size() == 1 ? 1 : cp->rank() + 1));
  CHECK(count(TokenRows(kRows, kLength), Order::kZigZag) == cp->size());
  CHECK(count(blind_after(0), Order::kContiguous) == 1);
}

TEST_CASE("the ring's next messages are under way before a step computes", "[parallel][context][ring]") {
  const auto cp = MpiCommunicator::over_world();
  const auto cpu = make_cpu_backend();
  TokenRows mine =
      ring_part(*cp, TokenRows(kRows, kLength), places_of(Order::kZigZag, cp->rank(), cp->size()));
  std::vector<std::int64_t> started;
  RecordingBackend recording(*cpu, [&](const std::string& op) {
    if (op == "attention_forward") {
      started.push_back(cp->traffic()[Collective::kPointToPoint].calls);
    }
  });
  run<double>(recording, RingAttention(*cp), mine);
  REQUIRE(std::ssize(started) == cp->size());
  for (int step = 0; step < cp->size(); ++step) {
    const int passed_on = std::min(step + 1, cp->size() - 1);
    CHECK(started[static_cast<std::size_t>(step)] == 2 * passed_on);
  }
}

TEST_CASE("both cores run on shapes and count what they would move", "[parallel][context][counting]") {
  CountingBackend backend;
  Stream stream;
  StepScalars scalars;
  Arena scratch("scratch", backend.allocate(std::int64_t{1} << 30));
  Context ctx{backend, stream, scratch, scalars, DType::kFloat32};
  constexpr std::int64_t kTokens = kRows * kLength / 4;
  const auto ints = [&] { return scratch.allocate("ints", DType::kInt32, {kTokens}); };
  TokenBatch batch = {.batch = kRows,
                      .seq_len = kLength / 4,
                      .ids = ints(),
                      .targets = {},
                      .target_weights = {},
                      .index = ints(),
                      .document_start = ints(),
                      .positions = ints()};
  const TensorView q = ctx.allocate("q", {kTokens, kHeads * kHeadDim});
  const TensorView k = ctx.allocate("k", {kTokens, kKvHeads * kHeadDim});
  const TensorView lse = ctx.allocate("lse", {kHeads, kTokens});
  const AttentionCore::BackwardArgs args = {
      .q = q, .k = k, .v = k, .o = q, .lse = lse, .d_o = q, .dq = q, .dk = k, .dv = k};
  for (const CoreKind& kind : both_cores()) {
    CountingCommunicator cp(1, 4);
    const auto core = kind.make(cp);
    const ContextSplit split = {.ranks = 4, .exchange = kind.exchange};
    batch.context = std::make_shared<const ContextKeys>(context_keys(
        split, kTokens, scratch.allocate("keys", DType::kInt32, {key_numbers(split) * kTokens})));
    const std::int64_t before = backend.work().attention_flops;
    core->forward(ctx, call_of(batch), q, k, k, q, lse);
    // Half of what this rank's queries and all keys make, as for one rank that has all tokens.
    CHECK(backend.work().attention_flops - before ==
          4 * kHeadDim * kRows * kHeads * (kLength / 4) * kLength / 2);
    core->backward(ctx, call_of(batch), args);
    const std::int64_t moved = cp.traffic().total().sent_bytes;
    // Forward k and v to three others; backward again, and their gradients: the ring's also go home.
    const std::int64_t once = 2 * k.bytes();
    CHECK(moved == (kind.exchange == ContextExchange::kRing ? 10 : 9) * once);
  }
}

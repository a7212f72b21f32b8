// RANKS 1 2 4 8
// A vocabulary divided over ranks, evenly or not: cross-entropy and embedding against one rank that has it
// all.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "caravan/backend/counting_backend.h"
#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/shard_spec.h"
#include "caravan/model/local_ports.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/loss.h"
#include "caravan/parallel/sequence_boundary.h"
#include "caravan/parallel/tensor_boundary.h"
#include "caravan/parallel/vocab_reduce.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/adjoint.h"
#include "tests/support/port_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// One rank sums the vocabulary in one go, many in parts: rounding of sums of 50 terms, scores up to 20.
constexpr double kFloat64Tolerance = 1e-14;
constexpr double kFloat32Tolerance = 4e-6;
constexpr double kAdjointTolerance = 1e-14;
constexpr std::int64_t kTokens = 24;

Range columns_of(const Communicator& group, std::int64_t vocab_size) {
  const ShardSpec cut{{{"tp", 0, 1}}, {}};
  return cut.resolve({vocab_size}, Coordinates({{"tp", group.rank(), group.size()}}))[0];
}

template <class T>
struct Losses {
  std::vector<double> losses;
  std::vector<double> dlogits;  // this rank's columns
};

/// Losses and gradients of the columns `range` of a [kTokens, vocab_size] matrix of scores.
template <class T>
Losses<T> cross_entropy(const VocabReduce& vocab, const Range& range, std::int64_t vocab_size) {
  const auto backend = make_cpu_backend();
  Stream stream;
  StepScalars scalars;
  scalars.inv_valid_tokens = 1.0 / 17.0;
  Arena scratch("scratch", allocate_host(1 << 20));
  Context ctx{*backend, stream, scratch, scalars, DTypeOf<T>::kValue};
  const TensorView logits = ctx.allocate("logits", {kTokens, range.size()});
  const CounterRng rng(13, 0);
  std::vector<std::int32_t> targets;
  std::vector<float> weights;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t v = range.begin; v < range.end; ++v) {
      const auto score = static_cast<float>(7.0 * rng.normal(static_cast<std::uint64_t>(t * vocab_size + v)));
      logits.data<T>()[t * range.size() + v - range.begin] = static_cast<T>(score);
    }
    targets.push_back(static_cast<std::int32_t>(t * 5 % vocab_size));
    weights.push_back(t % 7 == 2 ? 0.0F : 1.0F);
  }
  const TensorView ids(targets.data(), DType::kInt32, {kTokens});
  const TensorView target_weights(weights.data(), DType::kFloat32, {kTokens});
  const auto vector = [&] { return ctx.allocate("statistic", {kTokens}); };
  const TensorView row_max = vector();
  const TensorView row_sum = vector();
  const TensorView target_logit = vector();
  const TensorView lse = vector();
  const TensorView losses = vector();
  cross_entropy_stats(ctx, {logits, ids, vocab.vocab_begin(), row_max, row_sum, target_logit});
  vocab.reduce(ctx, row_max, row_sum, target_logit);
  cross_entropy_loss(ctx, {row_max, row_sum, target_logit, target_weights, lse, losses});
  cross_entropy_backward(ctx, {logits, ids, target_weights, lse, vocab.vocab_begin(), &scalars});
  Losses<T> result;
  result.losses.assign(losses.data<T>(), losses.data<T>() + losses.numel());
  result.dlogits.assign(logits.data<T>(), logits.data<T>() + logits.numel());
  return result;
}

std::vector<double> columns(const std::vector<double>& matrix, std::int64_t width, const Range& range) {
  std::vector<double> part;
  for (std::int64_t row = 0; row < kTokens; ++row) {
    const auto begin = matrix.begin() + row * width;
    part.insert(part.end(), begin + range.begin, begin + range.end);
  }
  return part;
}

template <class T>
void check_against_one_rank(std::int64_t vocab_size, double tolerance) {
  const auto group = MpiCommunicator::over_world();
  const Range range = columns_of(*group, vocab_size);
  const auto whole = cross_entropy<T>(LocalVocab(), {0, vocab_size}, vocab_size);
  const auto part = cross_entropy<T>(ShardedVocab(*group, range.begin), range, vocab_size);
  INFO("V = " << vocab_size << ", columns " << range.begin << " to " << range.end);
  CHECK(relative_error(part.losses, whole.losses) <= tolerance);
  CHECK(relative_error(part.dlogits, columns(whole.dlogits, vocab_size, range)) <= tolerance);
  std::vector<double> of_rank_0 = part.losses;
  group->broadcast(TensorView(of_rank_0.data(), DType::kFloat64, {kTokens}), 0);
  CHECK(part.losses == of_rank_0);
}

/// Lookup and its adjoint through a boundary, as the embedding segment does it.
struct Embedding {
  Embedding(Communicator& group, const Boundary& boundary_used) : boundary(boundary_used) {
    const Range range = columns_of(group, kVocabulary);
    begin = range.begin;
    rows = range.size();
    for (std::int64_t t = 0; t < kTokens; ++t) {
      ids.push_back(static_cast<std::int32_t>((t * t + 3 * t) % kVocabulary));
    }
  }

  std::vector<double> forward(const std::vector<double>& table) {
    const ArenaScope scope(scratch);
    const TensorView stream = ctx.allocate("stream", {boundary.stream_tokens(kTokens), kWidth});
    const TensorView partial = boundary.partial_buffer(ctx, stream);
    embedding_forward(ctx, {weight(table), id_view(), partial, begin, kVocabulary});
    boundary.leave(ctx, partial, stream).wait();
    return doubles(stream);
  }
  std::vector<double> backward(const std::vector<double>& dy) {
    const ArenaScope scope(scratch);
    const TensorView stream = ctx.allocate("dy", {boundary.stream_tokens(kTokens), kWidth});
    std::copy(dy.begin(), dy.end(), stream.data<double>());
    const TensorView full =
        boundary.leave_backward(ctx, stream, [&](const Shape& shape) { return ctx.allocate("full", shape); });
    std::vector<double> dweight(static_cast<std::size_t>(rows * kWidth), 0.0);
    embedding_backward(ctx, {full, id_view(), weight(dweight), begin, kVocabulary});
    return dweight;
  }
  TensorView weight(const std::vector<double>& values) const {
    return {const_cast<double*>(values.data()), DType::kFloat64, {rows, kWidth}};
  }
  TensorView id_view() { return {ids.data(), DType::kInt32, {kTokens}}; }

  static constexpr std::int64_t kVocabulary = 19;
  static constexpr std::int64_t kWidth = 6;
  const Boundary& boundary;
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  std::vector<std::int32_t> ids;
  ReferenceBackend backend;
  Stream queue;
  StepScalars scalars;
  Arena scratch{"scratch", allocate_host(1 << 20)};
  Context ctx{backend, queue, scratch, scalars, DType::kFloat64};
};

void check_embedding_adjoint(Communicator& group, const Boundary& boundary, Spread stream_spread) {
  Embedding embedding(group, boundary);
  const auto table = random_numbers(group, Spread::kEachRankItsOwn, 3, embedding.rows * Embedding::kWidth);
  const auto dy =
      random_numbers(group, stream_spread, 4, boundary.stream_tokens(kTokens) * Embedding::kWidth);
  const Product left = inner_product(group, stream_spread, embedding.forward(table), dy);
  const Product right = inner_product(group, Spread::kEachRankItsOwn, table, embedding.backward(dy));
  CHECK(adjoint_error(left, right) <= kAdjointTolerance);
  CHECK(left.magnitude > 1.0);
}

/// How often one of two ranks with uneven shards joins the others in the head's loss of many tokens.
std::int64_t reductions_of_head(int rank) {
  ModelConfig config = port_model_config();
  config.vocab_size = 8193;  // 4097 and 4096 columns: chunks of 4095 or 4096 tokens, were they cut by these
  constexpr std::int64_t kManyTokens = 4096;
  std::vector<ParameterSpec> specs = parameter_table(config, ShardTable::kWhole);
  specs.back().shard.cuts = {{"tp", 0, 1}};
  REQUIRE(specs.back().name == "output.weight");
  CountingBackend backend;
  ParameterSet parameters(specs, Coordinates({{"tp", rank, 2}}), DType::kFloat32, backend,
                          Gradients::kAllocated);
  CountingCommunicator tp(rank, 2);
  const TensorBoundary boundary(tp);
  const ShardedVocab vocab(tp, parameters.at("output.weight").region()[0].begin);
  const LmHead head({.norm = parameters.at("norm.weight"),
                     .output = parameters.at("output.weight"),
                     .boundary = boundary,
                     .vocab = vocab,
                     .eps = config.rms_norm_eps});
  Stream stream;
  StepScalars scalars;
  Arena scratch("scratch", backend.allocate(std::int64_t{1} << 40));
  Context ctx{backend, stream, scratch, scalars, DType::kFloat32};
  const auto rows = [&](DType dtype) { return scratch.allocate("rows", dtype, {kManyTokens}); };
  const TokenBatch batch = {.batch = 1,
                            .seq_len = kManyTokens,
                            .ids = rows(DType::kInt32),
                            .targets = rows(DType::kInt32),
                            .target_weights = rows(DType::kFloat32),
                            .index = rows(DType::kInt32),
                            .document_start = rows(DType::kInt32),
                            .positions = rows(DType::kInt32)};
  ResidualStream hidden{.x = ctx.allocate("x", {kManyTokens, config.hidden_size}), .delta = {}};
  ReplicatedStore store(parameters);
  const std::vector<int> groups = head.groups();
  const Lease lease(store, groups);
  head.loss(ctx, batch, hidden, rows(DType::kFloat32));
  return tp.traffic()[Collective::kAllReduce].calls;
}

}  // namespace

TEST_CASE("ranks with uneven shards of the vocabulary cut the tokens alike", "[parallel][vocab][counting]") {
  CHECK(reductions_of_head(0) == 6);  // three chunks of at most 2047 tokens
  CHECK(reductions_of_head(1) == 6);
}

TEST_CASE("a divided vocabulary gives the loss and gradients of a whole one", "[parallel][vocab]") {
  for (const std::int64_t vocab_size : {64, 50, 9, 3}) {  // 3: some ranks have no column
    check_against_one_rank<double>(vocab_size, kFloat64Tolerance);
    check_against_one_rank<float>(vocab_size, kFloat32Tolerance);
  }
}

TEST_CASE("a divided embedding's lookup and gradient are adjoint", "[parallel][vocab][adjoint]") {
  const auto group = MpiCommunicator::over_world();
  check_embedding_adjoint(*group, TensorBoundary(*group), Spread::kReplicated);
  check_embedding_adjoint(*group, SequenceBoundary(*group), Spread::kEachRankItsOwn);
}

TEST_CASE("a logit that is not a number reaches the loss of every rank", "[parallel][vocab]") {
  const auto group = MpiCommunicator::over_world();
  ReferenceBackend backend;
  Stream stream;
  StepScalars scalars;
  Arena scratch("scratch", allocate_host(1 << 16));
  Context ctx{backend, stream, scratch, scalars, DType::kFloat64};
  std::vector<double> logits = {1.0, group->rank() == group->size() - 1 ? NAN : 2.0};
  std::int32_t target = 0;
  const TensorView row_max = ctx.allocate("max", {1});
  const TensorView row_sum = ctx.allocate("sum", {1});
  const TensorView target_logit = ctx.allocate("target", {1});
  const ShardedVocab vocab(*group, 2 * group->rank());
  cross_entropy_stats(
      ctx, {TensorView(logits.data(), DType::kFloat64, {1, 2}), TensorView(&target, DType::kInt32, {1}),
            vocab.vocab_begin(), row_max, row_sum, target_logit});
  vocab.reduce(ctx, row_max, row_sum, target_logit);
  CHECK(std::isnan(*row_sum.data<double>()));
}

TEST_CASE("a divided vocabulary costs three numbers per token and rank", "[parallel][vocab][counting]") {
  CountingBackend backend;
  Stream stream;
  StepScalars scalars;
  Arena scratch("scratch", backend.allocate(1 << 16));
  Context ctx{backend, stream, scratch, scalars, DType::kFloat32};
  CountingCommunicator tp(1, 4);
  const TensorView statistic = ctx.allocate("statistic", {kTokens});
  ShardedVocab(tp, 5).reduce(ctx, statistic, statistic, statistic);
  CHECK(tp.traffic()[Collective::kAllReduce].calls == 2);
  CHECK(tp.traffic()[Collective::kAllReduce].sent_bytes == 3 * kTokens * 4);
}

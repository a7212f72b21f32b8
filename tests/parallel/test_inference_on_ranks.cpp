// RANKS 1 2 4 8
// Evaluation and generation with a model that all ranks hold together (tensor parallel, in stages, both),
// against one rank.
#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/comm/mpi_session.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "caravan/train/generator.h"
#include "kernels/cpu/cpu_backend.h"
#include "support/mesh_runs.h"

using namespace caravan;

namespace {

// Sums of a few hundred products in another order.
constexpr double kTolerance = 1e-12;

Communicator& world() {
  return MpiSession::current().world();
}

/// 8 heads on 4 key/value heads: on 8 ranks two share one. Weights large enough to make choices clear.
void load(const Context& ctx, ParameterSet& parameters) {
  initialise(ctx, whole_shards(parameters), 11);
  for (Parameter& parameter : parameters.all()) {
    auto* values = parameter.stored_value().data<double>();
    for (std::int64_t i = 0; i < parameter.shape().numel(); ++i) {
      values[i] *= parameter.shape().rank() == 2 ? 8.0 : 1.0;
    }
  }
}

/// Ways in which all ranks hold the model: in 1, 2 and 4 stages, of which 5 layers make no equal ones, as far
/// as ranks go.
std::vector<InferenceRanks> ways_to_share() {
  std::vector<InferenceRanks> ways;
  for (int pp = 1; pp <= std::min(world().size(), 4); pp *= 2) {
    ways.push_back({world(), pp});
  }
  return ways;
}

ModelConfig model_of(bool is_tied) {
  return test::mesh_model(is_tied, 5);
}

Generator generator_on(const InferenceRanks& ranks, Backend& backend, KvCache cache, bool is_tied) {
  return {model_of(is_tied), DType::kFloat64, backend, 40, cache, load, ranks};
}

double loss_on(const InferenceRanks& ranks, Backend& backend, const Batch& batch, bool is_tied) {
  InferenceModel model(model_of(is_tied), DType::kFloat64, backend, {.rows = 7, .seq_len = 21}, ranks);
  load(model.context(), model.parameters());
  return model.loss_sum(batch);
}

void check_close(const std::vector<double>& ours, const std::vector<double>& theirs) {
  REQUIRE(ours.size() == theirs.size());
  double largest = 0.0;
  double worst = 0.0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    largest = std::max(largest, std::abs(theirs[i]));
    worst = std::max(worst, std::abs(ours[i] - theirs[i]));
  }
  CHECK(largest > 0.1);
  CHECK(worst <= kTolerance * largest);
}

}  // namespace

TEST_CASE("ranks that share a model have the logits of one rank, prompt and continuation",
          "[parallel][inference]") {
  const auto backend = make_cpu_backend();
  SelfCommunicator self;
  const std::vector<std::int32_t> prompt = {3, 1, 4, 1, 5, 9, 250};
  const std::vector<std::int32_t> next = {26};
  for (const bool is_tied : {false, true}) {
    for (const InferenceRanks& ranks : ways_to_share()) {
      CAPTURE(is_tied, ranks.pp);
      Generator shared = generator_on(ranks, *backend, KvCache::kOn, is_tied);
      Generator alone = generator_on({self}, *backend, KvCache::kOn, is_tied);
      const std::vector<double> first = shared.next_logits(prompt, 0);
      CHECK(first.size() == 251);
      check_close(first, alone.next_logits(prompt, 0));
      check_close(shared.next_logits(next, 7), alone.next_logits(next, 7));
      Generator uncached = generator_on(ranks, *backend, KvCache::kOff, is_tied);
      check_close(uncached.next_logits(prompt, 0), first);
    }
  }
}

TEST_CASE("ranks that share a model all make the tokens of one rank", "[parallel][inference]") {
  const auto backend = make_cpu_backend();
  SelfCommunicator self;
  const std::vector<std::int32_t> prompt = {3, 1, 4, 1, 5};
  const auto all = [](std::int32_t) { return true; };
  for (const SamplingOptions& sampling :
       {SamplingOptions{}, SamplingOptions{.temperature = 0.9, .top_k = 40, .top_p = 0.95, .seed = 5}}) {
    const auto wanted =
        generator_on({self}, *backend, KvCache::kOn, false).generate(prompt, 30, {}, sampling, all);
    CHECK(wanted.size() == 30);
    for (const InferenceRanks& ranks : ways_to_share()) {
      CAPTURE(sampling.temperature, ranks.pp);
      CHECK(generator_on(ranks, *backend, KvCache::kOn, false).generate(prompt, 30, {}, sampling, all) ==
            wanted);
    }
  }
}

TEST_CASE("ranks that share a model have the loss of one rank, whatever the number of rows",
          "[parallel][inference]") {
  const auto backend = make_cpu_backend();
  SelfCommunicator self;
  for (const std::int64_t rows : {7, 3, 1}) {  // one after the other through stages, also fewer than stages
    const Batch batch = test::mesh_batch(0, rows, 21, true);
    const double wanted = loss_on({self}, *backend, batch, true);
    CHECK(wanted > 1.0);
    for (const InferenceRanks& ranks : ways_to_share()) {
      CAPTURE(rows, ranks.pp);
      CHECK(std::abs(loss_on(ranks, *backend, batch, true) - wanted) <= kTolerance * wanted);
    }
  }
}

TEST_CASE("each rank holds its own layers, and the keys of its own heads", "[parallel][inference]") {
  const ModelConfig model = model_of(false);
  for (const InferenceRanks& ranks : ways_to_share()) {
    CAPTURE(ranks.pp);
    const InferenceLayout layout(model, DType::kFloat64, 40, ranks);
    const std::int64_t tp = world().size() / ranks.pp;
    CHECK(layout.kv_width() == std::max<std::int64_t>(1, model.n_kv_heads / tp) * model.head_dim);
    CHECK(layout.layers().size() < (ranks.pp > 1 ? 5 : 6));
    CHECK(world().all_reduce_value(layout.layers().size()) == 5 * tp);
    CHECK((layout.layers().begin == 0) == (layout.pp().rank() == 0));
  }
}

TEST_CASE("ranks that cannot share a model are told why", "[parallel][inference]") {
  ModelConfig model = model_of(false);
  CHECK_THROWS_WITH(inference_mesh(model, 4, 3), Catch::Contains("4 ranks cannot make 3 equal stages"));
  CHECK_THROWS_WITH(inference_mesh(model, 6, 6), Catch::Contains("but the model has only 5 layers"));
  model.n_heads = 3;
  model.n_kv_heads = 3;
  if (world().size() > 1) {
    CHECK_THROWS_WITH(InferenceLayout(model, DType::kFloat64, 40, {world()}),
                      Catch::Contains("ranks cannot share this model: parallel.tp is"));
  }
}

// RANKS 1 2 4 8
// Evaluation and generation with a model that all ranks hold together (tensor parallel), against one rank.
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

Generator generator_on(Communicator& ranks, Backend& backend, KvCache cache, bool is_tied) {
  return {test::mesh_model(is_tied), DType::kFloat64, backend, 40, cache, load, ranks};
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
    Generator shared = generator_on(world(), *backend, KvCache::kOn, is_tied);
    Generator alone = generator_on(self, *backend, KvCache::kOn, is_tied);
    const std::vector<double> first = shared.next_logits(prompt, 0);
    CHECK(first.size() == 251);
    check_close(first, alone.next_logits(prompt, 0));
    check_close(shared.next_logits(next, 7), alone.next_logits(next, 7));
    Generator uncached = generator_on(world(), *backend, KvCache::kOff, is_tied);
    check_close(uncached.next_logits(prompt, 0), first);
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
        generator_on(self, *backend, KvCache::kOn, false).generate(prompt, 30, {}, sampling, all);
    CHECK(wanted.size() == 30);
    CHECK(generator_on(world(), *backend, KvCache::kOn, false).generate(prompt, 30, {}, sampling, all) ==
          wanted);
  }
}

TEST_CASE("each rank's cache has the keys of its own heads", "[parallel][inference]") {
  const ModelConfig model = test::mesh_model(false);
  const InferenceLayout layout(model, DType::kFloat64, 40, world());
  const std::int64_t heads = std::max<std::int64_t>(1, model.n_kv_heads / world().size());
  CHECK(layout.kv_width() == heads * model.head_dim);
}

TEST_CASE("ranks that cannot share a model are told why", "[parallel][inference]") {
  ModelConfig model = test::mesh_model(false);
  model.n_heads = 3;
  model.n_kv_heads = 3;
  if (world().size() > 1) {
    CHECK_THROWS_WITH(InferenceLayout(model, DType::kFloat64, 40, world()),
                      Catch::Contains("ranks cannot share this model: parallel.tp is"));
  }
}

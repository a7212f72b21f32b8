// RANKS 2 4
// TIMEOUT 300
// caravan verify's comparisons: sound meshes are within their tolerances, four planted faults are found and
// named.
#include <catch2/catch.hpp>
#include <cstring>

#include "caravan/comm/mpi_session.h"
#include "caravan/train/verify_report.h"
#include "tests/support/faulty_communicator.h"
#include "tests/support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;

struct Case {
  ParallelSection parallel;
  DType dtype = DType::kFloat64;
  std::int64_t micro_batch = 1;
  bool is_tied = false;
  bool is_packed = false;
  int n_layers = 2;
};

RunConfig config_of(const Case& layout) {
  RunConfig config;
  config.mode = TrainMode::kSynchronous;
  config.dtype = layout.dtype;
  config.data.max_seq_len = kLongest + 1;
  config.training.batch_size = kRows;
  config.training.micro_batch = layout.micro_batch;
  config.training.clip_norm = 0.9;
  config.parallel = layout.parallel;
  return config;
}

using Spoil = std::function<void(const std::vector<ParameterShard>& shards)>;

/// Verifies a mesh over `world`, in which something may go wrong, whose weights `spoil` may have changed.
Verification verify(Communicator& world, const Case& layout, int steps, const Spoil& spoil = {}) {
  Communicator& honest = MpiSession::current().world();
  const ModelConfig model = mesh_model(layout.is_tied, layout.n_layers);
  const RunConfig config = config_of(layout);
  MeshRun mesh(world, config, model);
  if (spoil) {
    mesh->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
      initialise(ctx, shards, 5);
      spoil(shards);
    });
  }
  SelfCommunicator self;
  std::unique_ptr<MeshRun> one_rank;
  if (honest.rank() == Verifier::kRoot) {
    one_rank = std::make_unique<MeshRun>(self, one_rank_config(config, mesh->layout().sizes), model);
  }
  Verifier verifier({honest, *mesh, one_rank ? &**one_rank : nullptr, 0});
  verifier.compare_models(mesh_batch(0, kRows, kLongest, layout.is_packed));
  for (int step = 0; step < steps; ++step) {
    verifier.compare_step(mesh_batch(step, kRows, kLongest, layout.is_packed), 3e-3);
  }
  return verifier.result();
}

/// The first tensor that differs, on the root; "none" when there is none, and on the other ranks.
std::string first_difference(const Verification& result) {
  const Difference* first = result.first_difference();
  return first == nullptr ? "none" : first->name;
}

bool is_root() {
  return MpiSession::current().world().rank() == Verifier::kRoot;
}

/// What the root finds; the others find nothing.
void check_first_difference(const Verification& result, const std::string& name) {
  CHECK(first_difference(result) == (is_root() ? name : "none"));
}

std::vector<Case> sound_cases(int ranks) {
  std::vector<Case> cases = {
      {.parallel = {.dp_replicate = ranks, .dp_shard = 1}},
      {.parallel = {.zero_stage = 2}, .micro_batch = kRows / ranks, .is_packed = true},
      {.parallel = {}, .dtype = DType::kFloat32, .is_tied = true},
      {.parallel = {.dp_shard = 1, .tp = ranks, .sequence_parallel = false}, .is_tied = true},
      {.parallel = {.dp_shard = 1, .tp = ranks},
       .dtype = DType::kFloat32,
       .micro_batch = 4,
       .is_packed = true},
      {.parallel = {.dp_shard = 1, .cp = ranks, .context = ContextExchange::kRing}, .dtype = DType::kFloat32},
      {.parallel = {.dp_shard = 1, .pp = ranks}, .is_tied = true, .n_layers = 5},
      {.parallel = {.dp_shard = 1,
                    .pp = ranks,
                    .pipeline_schedule = PipelineSchedule::kInterleaved,
                    .stages_per_rank = 2},
       .dtype = DType::kFloat32,
       .n_layers = 8},
  };
  if (ranks == 4) {
    cases.push_back({.parallel = {.dp_shard = 2, .tp = 2}, .is_tied = true});
    cases.push_back({.parallel = {.dp_shard = 1, .cp = 2, .tp = 2}, .micro_batch = 2, .is_packed = true});
    cases.push_back({.parallel = {.dp_replicate = 2}, .dtype = DType::kFloat32});
    cases.push_back({.parallel = {.dp_shard = 1, .tp = 2, .pp = 2}, .is_tied = true, .n_layers = 3});
    cases.push_back(
        {.parallel = {.pp = 2, .pipeline_schedule = PipelineSchedule::kZeroBubble, .zero_stage = 2},
         .dtype = DType::kFloat32,
         .is_packed = true});
  }
  return cases;
}

}  // namespace

TEST_CASE("sound meshes lie within their tolerances, with room", "[parallel][verify]") {
  const int ranks = MpiSession::current().world().size();
  for (const Case& layout : sound_cases(ranks)) {
    CAPTURE(layout.parallel.tp, layout.parallel.cp, layout.parallel.pp, layout.parallel.zero_stage,
            dtype_name(layout.dtype));
    const Verification result = verify(MpiSession::current().world(), layout, 5);
    check_first_difference(result, "none");
    if (!is_root()) {
      CHECK(result.outputs.empty());
      continue;
    }
    CHECK(result.weights.size() ==
          parameter_table(mesh_model(layout.is_tied, layout.n_layers), ShardTable::kSynchronous).size());
    CHECK(result.gradients.size() == result.weights.size());
    REQUIRE(result.outputs.size() == static_cast<std::size_t>(2 + 2 * layout.n_layers));
    CHECK(result.outputs.at(0).name == "tok_embeddings");
    CHECK(result.outputs.at(1).name == "layers.0.attention");
    CHECK(result.outputs.back().name == "logits");
    CHECK(result.steps.size() == 5);
    double largest = 0.0;
    for (const auto* list : {&result.outputs, &result.gradients, &result.losses}) {
      for (const Difference& each : *list) {
        CAPTURE(each.name, each.relative, each.tolerance);
        largest = std::max(largest, each.relative / each.tolerance);
        // The tolerances must mean something too.
        CHECK(each.tolerance < (layout.dtype == DType::kFloat64 ? 1e-12 : 5e-4));
      }
    }
    CAPTURE(largest);
    CHECK(largest < 0.5);
    for (const TopAgreement& top : result.top_k) {
      CHECK(top.agreement == 1.0);
    }
  }
}

TEST_CASE("one bit of one weight on one rank is found, and named to the element", "[parallel][verify]") {
  Communicator& world = MpiSession::current().world();
  const ParallelSection parallel =
      GENERATE(ParallelSection{.tp = 2}, ParallelSection{.dp_shard = 1, .tp = -1}, ParallelSection{},
               ParallelSection{.pp = 2});
  const int at_fault = world.size() - 1;  // of a pipeline in the second stage
  const Verification result =
      verify(world, {.parallel = parallel, .dtype = DType::kFloat32}, 0,
             [&](const std::vector<ParameterShard>& shards) {
               for (const ParameterShard& shard : shards) {
                 if (world.rank() == at_fault && shard.parameter->name() == "layers.1.attention.wk.weight") {
                   auto* bits = static_cast<std::uint32_t*>(shard.value.raw());
                   bits[3] ^= 1U;
                 }
               }
             });
  check_first_difference(result, "layers.1.attention.wk.weight");
  if (is_root()) {
    const Difference& found = *result.first_difference();
    CHECK(found.unequal >= 1);
    CHECK(found.unequal <= world.size());  // ranks that hold copies of the element, or gather it
    CHECK(found.detail.starts_with("element ["));
    CHECK(describe(found).find("is not the exact part of the whole tensor") != std::string::npos);
    CHECK(result.outputs.front().is_within());
  }
}

TEST_CASE("a missing reduction is found, and the segment or gradient named", "[parallel][verify]") {
  Communicator& world = MpiSession::current().world();
  const auto verify_without = [&](const ParallelSection& parallel, int split, std::optional<int> call) {
    FaultyCommunicator faulty(world,
                              {.kind = PlantedFault::Kind::kMissingAllReduce, .split = split, .call = call});
    return verify(faulty, {.parallel = parallel}, 0);
  };
  // tp sums the embedding, then attention and MLP of every layer.
  const ParallelSection tp{.dp_shard = 1, .tp = world.size(), .sequence_parallel = false};
  check_first_difference(verify_without(tp, 0, 0), "tok_embeddings");
  check_first_difference(verify_without(tp, 0, 2), "layers.0.feed_forward");
  check_first_difference(verify_without(tp, 0, 3), "layers.1.attention");
  // DDP sums gradients alone: from the head on all are wrong, and nothing before.
  const ParallelSection ddp{.dp_replicate = world.size(), .dp_shard = 1};
  check_first_difference(verify_without(ddp, 1, std::nullopt), "output.weight");
}

TEST_CASE("ranks in the wrong order are found", "[parallel][verify]") {
  Communicator& world = MpiSession::current().world();
  const auto verify_reversed = [&](const ParallelSection& parallel) {
    FaultyCommunicator faulty(world, {.kind = PlantedFault::Kind::kReversedRanks, .split = 0, .call = {}});
    return verify(faulty, {.parallel = parallel}, 0);
  };
  // Sequence parallelism gives a rank another's tokens; without it the ranks look for targets in the wrong
  // columns of the vocabulary, which first the output layer's gradient shows.
  check_first_difference(verify_reversed({.dp_shard = 1, .tp = world.size()}), "tok_embeddings");
  check_first_difference(verify_reversed({.dp_shard = 1, .tp = world.size(), .sequence_parallel = false}),
                         "output.weight");
}

TEST_CASE("the stream of another micro-batch between stages is found, and the first segment after it named",
          "[parallel][verify]") {
  Communicator& world = MpiSession::current().world();
  const Case layout{.parallel = {.pp = 2}, .n_layers = 4};
  FaultyCommunicator faulty(world, {.kind = PlantedFault::Kind::kStaleMessages, .split = 0});
  const PipelineShape pipeline{.ranks = 2};
  const std::int64_t border = stages_of_rank(mesh_model(false, layout.n_layers), pipeline, 1).front().begin;
  const Verification result = verify(faulty, layout, 0);
  check_first_difference(result, fmt::format("layers.{}.attention", border));
  if (is_root()) {
    CHECK(result.first_difference()->rank >= world.size() / 2);
  }
}

TEST_CASE("the gradient of another micro-batch between stages is found, and the last segment before it named",
          "[parallel][verify]") {
  Communicator& world = MpiSession::current().world();
  const Case layout{.parallel = {.pp = 2}, .n_layers = 4};
  FaultyCommunicator faulty(world, {.kind = PlantedFault::Kind::kStaleMessages, .split = 0, .tag = 1});
  const PipelineShape pipeline{.ranks = 2};
  const std::int64_t border = stages_of_rank(mesh_model(false, layout.n_layers), pipeline, 1).front().begin;
  // Gradients are listed from the head on; of the first stage the last layer's come first.
  check_first_difference(verify(faulty, layout, 0),
                         fmt::format("layers.{}.feed_forward.w2.weight", border - 1));
}

// RANKS 2 4
// TIMEOUT 300
// Failures that other systems had with their meshes, each under the number of its thread: torchtitan's where
// no other project is named. test_known_pipeline_failures.cpp has those of pipelines.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "caravan/io/checkpoint_writer.h"
#include "caravan/parallel/sharded_store.h"
#include "tests/support/checkpoints.h"
#include "tests/support/known_failures.h"
#include "tests/support/shared_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// The norm that a step on a mesh clips by.
double mesh_norm(const ParallelSection& parallel, const Batch& batch, bool is_tied) {
  MeshRun run(world(), config_of(parallel), mesh_model(is_tied));
  return run->step(batch, 1e-3).grad_norm;
}

}  // namespace

TEST_CASE("#2318: the gradient norm does not grow with the replicas of DDP and HSDP", "[parallel][known]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const double expected = norm_of(alone(batch, mesh_model(false)));
  check_close(mesh_norm({.dp_replicate = world().size(), .dp_shard = 1}, batch, false), expected);
  check_close(mesh_norm({.dp_replicate = 2}, batch, false), expected);
}

TEST_CASE("#596: the norm counts cut, copied and tied tensors once", "[parallel][known]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const bool is_tied = GENERATE(false, true);
  const double expected = norm_of(alone(batch, mesh_model(is_tied)));
  check_close(mesh_norm({.dp_shard = 1, .tp = world().size()}, batch, is_tied), expected);
  check_close(mesh_norm({.dp_shard = 1, .tp = world().size(), .sequence_parallel = false}, batch, is_tied),
              expected);
  check_close(mesh_norm({.dp_shard = -1, .tp = 2, .zero_stage = 1}, batch, is_tied), expected);
}

TEST_CASE("#2206: rows with few targets do not weigh more under accumulation and data parallelism",
          "[parallel][known]") {
  // A mean of the micro-batches' means would count the one target of a short row as much as twenty.
  const Batch batch = batch_of({20, 1, 1, 1, 1, 1, 1, 20});
  const MeshGradients expected = alone(batch, mesh_model(false));
  for (const std::int64_t zero_stage : {1, 2, 3}) {
    MeshRun run(world(), config_of({.zero_stage = zero_stage}), mesh_model(false));
    const MeshGradients gradients = run.gradients(batch);
    check_close(gradients.loss, expected.loss);
    if (world().rank() == 0) {
      check_close(norm_of(gradients), norm_of(expected));
    }
  }
}

TEST_CASE("Megatron #1764: a context rank without a valid token gives no NaN", "[parallel][known]") {
  // Targets in the first places only, which the first rank has.
  const Batch batch = batch_of({2, 1, 1, 2, 1, 1, 1, 11});
  const ContextExchange context = GENERATE(ContextExchange::kGather, ContextExchange::kRing);
  const ParallelSection parallel{.dp_shard = 1, .cp = world().size(), .context = context};
  Batch padded = batch;
  std::fill(padded.target_weights.begin() + 7 * padded.seq_len + 2, padded.target_weights.end(), 0.0F);
  padded.valid_tokens = std::count(padded.target_weights.begin(), padded.target_weights.end(), 1.0F);
  MeshRun run(world(), config_of(parallel, kRows), mesh_model(false));
  const std::vector<Batch> mine =
      micro_batches(padded, run->layout().geometry, batch_place(run->layout().at), 0);
  std::int64_t targets = 0;
  for (const Batch& part : mine) {
    targets += part.valid_tokens;
  }
  REQUIRE(world().all_reduce_value(targets, ReduceOp::kMin) == 0);
  const MeshGradients gradients = run.gradients(padded);
  const MeshGradients expected = alone(padded, mesh_model(false));
  check_close(gradients.loss, expected.loss);
  for (const auto& [name, values] : gradients.values) {
    CAPTURE(name);
    CHECK(relative_difference(values, expected.values.at(name)) <= kTolerance);
  }
}

TEST_CASE(
    "PR #3206, Megatron #1464: context ranks gather along tokens, and gradients of keys and values come home",
    "[parallel][known]") {
  // Two rows at a time, so that rows and tokens are different axes of what travels.
  const Batch batch = mesh_batch(3, kRows, kLongest, true);
  const MeshGradients expected = alone(batch, mesh_model(false));
  for (const ContextExchange context : {ContextExchange::kGather, ContextExchange::kRing}) {
    MeshRun run(world(), config_of({.dp_shard = 1, .cp = world().size(), .context = context}, 2),
                mesh_model(false));
    const MeshGradients gradients = run.gradients(batch);
    for (const auto& [name, values] : gradients.values) {
      CAPTURE(name);
      CHECK(relative_difference(values, expected.values.at(name)) <= kTolerance);
    }
  }
}

TEST_CASE("PR #1483: weights from Hugging Face files land where they belong on FSDP x TP",
          "[parallel][known]") {
  const SharedFolder folder(world());
  const bool is_tied = GENERATE(false, true);
  const ModelConfig model = mesh_model(is_tied);
  if (world().rank() == 0) {
    write_hf_checkpoint(folder / "hf", model, numbered_sources(model));
  }
  world().barrier();
  RunConfig config = config_of({.tp = 2});
  config.model.checkpoint = folder / "hf";
  const ModelSource source = open_model(config.model, nullptr);
  MeshRun run(world(), config, source.config);
  run->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
    load_parameters(source, 0, ctx, shards);
  });
  const auto weights = run.weights();
  if (world().rank() == 0) {
    CHECK(weights == read_all(*source.files));
  }
}

TEST_CASE("ROCm Megatron PR #63: gate and up rows stay beside each other in every cut of the MLP",
          "[parallel][known]") {
  const auto table = parameter_table(mesh_model(false), ShardTable::kSynchronous);
  const auto spec = [&](const std::string& name) {
    return *std::find_if(table.begin(), table.end(),
                         [&](const ParameterSpec& each) { return each.name == name; });
  };
  for (const std::int64_t tp : {1, 2, 4, 8}) {
    std::int64_t next = 0;
    for (std::int64_t rank = 0; rank < tp; ++rank) {
      const Coordinates at({{"tp", rank, tp}});
      const auto region = [&](const char* name) {
        const ParameterSpec& each = spec(name);
        return each.shard.resolve(each.shape, at);
      };
      const Range gate = region("layers.0.feed_forward.w1.weight")[0];
      CHECK(gate == region("layers.0.feed_forward.w3.weight")[0]);
      CHECK(gate == region("layers.0.feed_forward.w2.weight")[1]);
      CHECK(gate.begin == next);  // no row left out, none twice
      next = gate.end;
    }
    CHECK(next == mesh_model(false).intermediate_size);
  }
}

TEST_CASE("Megatron #92: the logits of a large vocabulary exist a chunk at a time", "[parallel][known]") {
  ModelConfig model = mesh_model(false);
  model.vocab_size = 128256;
  RunConfig config = config_of({.dp_shard = 1});
  config.dtype = DType::kFloat32;
  config.data.max_seq_len = 1025;
  config.training.micro_batch = kRows;
  const std::int64_t tokens = kRows * 1024;
  const SynchronousLayout layout(config, model, MeshSizes{}, 0);
  const std::int64_t logits_bytes = tokens * model.vocab_size * 4;
  CHECK(measure_synchronous(config, model, layout).step.scratch_bytes < logits_bytes / 20);
}

TEST_CASE("Megatron #637, #525: a rank's memory is the plan's, the optimizer's there before the first step",
          "[parallel][known]") {
  // Rows as long as the plan assumes.
  const Batch batch = batch_of(std::vector<std::int64_t>(kRows, kLongest));
  for (const ParallelSection& parallel :
       {ParallelSection{.dp_replicate = world().size(), .dp_shard = 1}, ParallelSection{},
        ParallelSection{.zero_stage = 2}, ParallelSection{.dp_shard = 1, .tp = world().size()},
        ParallelSection{.dp_shard = 1, .cp = world().size()}, ParallelSection{.tp = 2}}) {
    const RunConfig config = config_of(parallel);
    const ModelConfig model = mesh_model(false);
    MeshRun run(world(), config, model);
    const SynchronousNeeds plan = measure_synchronous(config, model, run->layout());
    Executor& executor = run->trainer().executor();
    CHECK(run->model().parameters().value_bytes() == plan.value_bytes);
    CHECK(run->model().parameters().grad_bytes() == plan.gradient_bytes);
    CHECK(executor.arena_bytes() == plan.step.saved_bytes + plan.step.scratch_bytes);
    CHECK(run->trainer().optimizer().state().numel() == 2 * plan.shard_elements);
    run->step(batch, 1e-3);
    run->loss_sum(batch);
    const auto* sharded = dynamic_cast<const ShardedStore*>(&run->store());
    CHECK((sharded == nullptr ? 0 : sharded->bytes()) == plan.store_bytes);
    CHECK(executor.saved_high_water() == plan.step.saved_bytes);
    CHECK(executor.scratch_high_water() == plan.step.scratch_bytes);
  }
}

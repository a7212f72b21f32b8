// RANKS 2 4
// TIMEOUT 300
// Failures that other systems had with their meshes, each under the number of its thread: torchtitan's where
// no other project is named. test_known_pipeline_failures.cpp has those of pipelines.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "caravan/io/checkpoint_writer.h"
#include "caravan/parallel/sharded_store.h"
#include "caravan/train/checkpointing.h"
#include "caravan/train/training_checkpoint.h"
#include "tests/support/checkpoints.h"
#include "tests/support/known_failures.h"
#include "tests/support/malloc_count.h"
#include "tests/support/mesh_runs.h"
#include "tests/support/recording_backend.h"
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
    const auto* sharded = dynamic_cast<const ShardedStore*>(&run->store());
    const auto check_store = [&] {
      CHECK((sharded == nullptr ? 0 : sharded->device_bytes()) == plan.store_bytes);
    };
    check_store();
    run->step(batch, 1e-3);
    run->loss_sum(batch);
    check_store();
    CHECK(executor.saved_high_water() == plan.step.saved_bytes);
    CHECK(executor.scratch_high_water() == plan.step.scratch_bytes);
  }
}

TEST_CASE("Megatron #637: no step takes memory from the device, the first one neither", "[parallel][known]") {
  const Batch batch = batch_of(std::vector<std::int64_t>(kRows, kLongest));
  for (const ParallelSection& parallel :
       {ParallelSection{.dp_replicate = world().size(), .dp_shard = 1}, ParallelSection{.zero_stage = 1},
        ParallelSection{.zero_stage = 2}, ParallelSection{}, ParallelSection{.reshard_after_forward = false},
        ParallelSection{.dp_replicate = 2}, ParallelSection{.tp = 2}, ParallelSection{.pp = 2},
        ParallelSection{.pp = 2, .pipeline_schedule = PipelineSchedule::kZeroBubble}}) {
    const RunConfig config = config_of(parallel);
    const ModelConfig model = mesh_model(true);
    const auto cpu = make_cpu_backend();
    RecordingBackend backend(*cpu);
    SynchronousRun run({config, model, world(), backend});
    run.load(
        [](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 5); });
    const int before = backend.allocations();
    CHECK(before > 0);
    run.loss_sum(batch);  // the evaluation before the first step
    for (int step = 0; step < 3; ++step) {
      run.step(batch, 1e-3);
      run.loss_sum(batch);
    }
    CHECK(backend.allocations() == before);
  }
}

TEST_CASE("Megatron #1509, PR #3920: going on reads the state into place, without a second copy of it",
          "[parallel][known]") {
  const SharedFolder folder(world());
  const Batch batch = batch_of(std::vector<std::int64_t>(kRows, kLongest));
  const ModelConfig model = mesh_model(false, 12);  // deep: no tensor is a large part of the state
  const std::int64_t zero_stage = GENERATE(1, 3);
  const RunConfig config = config_of({.zero_stage = zero_stage});
  std::string path;
  {
    MeshRun run(world(), config, model);
    run->step(batch, 1e-3);
    TrainingState state;
    state.step = 1;
    state.optimizer_step = 1;
    Checkpointing checkpoints(folder / "c", {}, world());
    checkpoints.save(state,
                     checkpoint_sources(run->store(), run->trainer().optimizer(), model, run->layout().at));
    path = checkpoints.last_saved();
  }
  MeshRun run(world(), config, model);
  std::int64_t state_bytes = 0;  // weights and both moments
  for (const ParameterShard& shard : run->store().shards()) {
    state_bytes += 3 * shard.value.bytes();
  }
  const auto checkpoint = open_checked_checkpoint(path, world());
  peak_bytes = live_bytes.load();
  const std::int64_t before = live_bytes;
  restore(*run, *checkpoint);
  const std::int64_t taken = peak_bytes - before;
  CAPTURE(taken, state_bytes);
  if (kCountsAllocations) {
    CHECK(before > state_bytes);  // the count works: the run itself is in it
    CHECK(taken < state_bytes / 4);
  }
  CHECK(run->trainer().optimizer().steps() == 1);
}

TEST_CASE("PR #2247: the norm of offloaded gradients is a number, and clips", "[parallel][known]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const double expected = norm_of(alone(batch, mesh_model(false)));
  for (const CpuOffload offload : {CpuOffload::kOptimizer, CpuOffload::kParametersAndOptimizer}) {
    RunConfig config = config_of({.cpu_offload = offload});
    config.training.clip_norm = expected / 8;
    MeshRun run(world(), config, mesh_model(false));
    for (int step = 0; step < 3; ++step) {
      const double norm = run->step(batch, 1e-3).grad_norm;
      CHECK(std::isfinite(norm));
      CHECK(norm > expected / 8);  // so it was clipped
      if (step == 0) {
        check_close(norm, expected);
      }
    }
  }
}

// Hangs, #810, #1207, Megatron #881, #735, #1142: tests/parallel/test_comm_watch.cpp has a rank that misses a
// collective, tests/integration/test_hanging_rank.sh and test_stopped_rank.py the job's end.

TEST_CASE("#3476: a save in the background that fails is reported, and loses nothing", "[parallel][known]") {
  // The folder goes while training goes on: removed by hand, or with the disk it was on.
  const SharedFolder folder(world());
  const Batch batch = batch_of(std::vector<std::int64_t>(kRows, kLongest));
  const ModelConfig model = mesh_model(false);
  const std::string checkpoints_folder = folder / "c";
  MeshRun run(world(), config_of({}), model);
  Checkpointing checkpoints(checkpoints_folder, {.is_async = true}, world());
  const auto save = [&](std::int64_t step) {
    run->step(batch, 1e-3);
    TrainingState state;
    state.step = step;
    checkpoints.save(state,
                     checkpoint_sources(run->store(), run->trainer().optimizer(), model, run->layout().at));
  };
  save(1);
  checkpoints.finish();
  save(2);
  world().barrier();
  if (world().rank() == 0) {
    for (const auto& entry : std::filesystem::directory_iterator(checkpoints_folder)) {
      if (entry.path().filename().string().starts_with("step_00000002.tmp-")) {
        std::filesystem::remove_all(entry.path());
      }
    }
  }
  world().barrier();
  std::string message;
  try {
    checkpoints.finish();
  } catch (const IoError& problem) {
    message = problem.what();
  }
  CAPTURE(message);
  CHECK_THAT(message, Catch::Contains("step_00000002"));
  CHECK(find_latest_checkpoint(checkpoints_folder, world())->state().step == 1);
  run->step(batch, 1e-3);  // the run is as it was
  save(4);
  checkpoints.finish();
  CHECK(find_latest_checkpoint(checkpoints_folder, world())->state().step == 4);
}

// RANKS 2 4
// TIMEOUT 300
// Failures that other systems had with pipelines, each under the number of its thread: torchtitan's where no
// other project is named.
#include <catch2/catch.hpp>

#include "caravan/config/run_config_fields.h"
#include "caravan/federated/run_plan.h"
#include "caravan/train/pipeline_executor.h"
#include "tests/support/known_failures.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr PipelineSchedule kSchedules[] = {PipelineSchedule::kGpipe, PipelineSchedule::k1F1B,
                                           PipelineSchedule::kInterleaved, PipelineSchedule::kZeroBubble};

/// Enough layers for two stages on every rank.
ModelConfig model_of(bool is_tied) {
  return mesh_model(is_tied, 2 * world().size());
}

/// `parallel` with a schedule, and with the stages that belong to it.
ParallelSection with(PipelineSchedule schedule, ParallelSection parallel) {
  parallel.pipeline_schedule = schedule;
  parallel.stages_per_rank = schedule == PipelineSchedule::kInterleaved ? 2 : 1;
  return parallel;
}

/// Every rank in a row, and two in a row of which the others are replicas, shards and tensor ranks.
std::vector<ParallelSection> meshes() {
  std::vector<ParallelSection> all;
  for (const PipelineSchedule schedule : kSchedules) {
    all.push_back(with(schedule, {.dp_shard = 1, .pp = world().size()}));
    if (world().size() > 2) {
      all.push_back(with(schedule, {.dp_replicate = 2, .dp_shard = 1, .pp = 2}));
      all.push_back(with(schedule, {.dp_shard = 2, .pp = 2}));
      all.push_back(with(schedule, {.dp_shard = 1, .tp = 2, .pp = 2}));
    }
  }
  return all;
}

std::string name_of(const ParallelSection& parallel) {
  return fmt::format("{} of {}", enum_name(parallel.pipeline_schedule),
                     describe(resolve_mesh(parallel, world().size())));
}

/// The same number on every rank.
void check_everywhere(double value, double expected) {
  check_close(value, expected);
  CHECK(world().all_reduce_value(value, ReduceOp::kMin) == world().all_reduce_value(value, ReduceOp::kMax));
}

}  // namespace

TEST_CASE("#596: every stage is clipped by the norm of the whole model", "[parallel][known][pipeline]") {
  const bool is_tied = GENERATE(false, true);
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const double whole_norm = norm_of(alone(batch, model_of(is_tied)));
  RunConfig one = config_of({.dp_shard = 1}, kRows);
  one.training.clip_norm = whole_norm / 2;
  SelfCommunicator self;
  MeshRun expected(self, one, model_of(is_tied));
  std::vector<StepResult> steps;
  for (int step = 0; step < 3; ++step) {
    steps.push_back(expected->step(mesh_batch(step, kRows, kLongest, false), 1e-3));
  }
  for (const ParallelSection& parallel : meshes()) {
    CAPTURE(name_of(parallel), is_tied);
    RunConfig config = config_of(parallel);
    config.training.clip_norm = whole_norm / 2;
    MeshRun run(world(), config, model_of(is_tied));
    for (int step = 0; step < 3; ++step) {
      const StepResult result = run->step(mesh_batch(step, kRows, kLongest, false), 1e-3);
      check_everywhere(result.grad_norm, steps[static_cast<std::size_t>(step)].grad_norm);
      check_close(result.loss, steps[static_cast<std::size_t>(step)].loss);
      CHECK((step > 0 || std::abs(result.grad_norm - whole_norm) <= kTolerance * whole_norm));
    }
  }
}

TEST_CASE("#1733: gradients do not depend on the number of micro-batches in the pipeline",
          "[parallel][known][pipeline]") {
  // Neither 1/m nor the accumulation divides: the valid targets of the step do, and rows have unequal
  // numbers.
  const Batch batch = batch_of({20, 1, 1, 3, 1, 1, 7, 20});
  const MeshGradients expected = alone(batch, model_of(false));
  for (const ParallelSection& parallel : meshes()) {
    const std::int64_t rows = kRows / (parallel.dp_replicate * parallel.dp_shard);
    for (std::int64_t micro_batch = 1; micro_batch <= rows; micro_batch *= 2) {
      CAPTURE(name_of(parallel), micro_batch);
      MeshRun run(world(), config_of(parallel, micro_batch), model_of(false));
      check_equal(run.gradients(batch), expected);
    }
  }
}

TEST_CASE("#931: every rank knows the loss, not only the last stage's", "[parallel][known][pipeline]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  const double expected = alone(batch, model_of(true)).loss;
  for (const ParallelSection& parallel : meshes()) {
    CAPTURE(name_of(parallel));
    MeshRun run(world(), config_of(parallel), model_of(true));
    check_everywhere(run->loss_sum(batch), expected * static_cast<double>(batch.valid_tokens));
    check_everywhere(run->gradients(batch), expected);
    check_everywhere(run->step(batch, 1e-3).loss, expected);
  }
}

TEST_CASE("Megatron #881: two stages of two tensor ranks come to the end of steps and evaluations",
          "[parallel][known][pipeline]") {
  if (world().size() != 4) {
    return;
  }
  const bool is_tied = GENERATE(false, true);
  const Batch batch = mesh_batch(0, kRows, kLongest, true);
  const MeshGradients expected = alone(batch, model_of(is_tied));
  for (const PipelineSchedule schedule : kSchedules) {
    for (const bool sequence_parallel : {false, true}) {
      const ParallelSection parallel =
          with(schedule, {.dp_shard = 1, .tp = 2, .pp = 2, .sequence_parallel = sequence_parallel});
      CAPTURE(name_of(parallel), sequence_parallel);
      MeshRun run(world(), config_of(parallel), model_of(is_tied));
      check_equal(run.gradients(batch), expected);
      for (int step = 0; step < 3; ++step) {
        run->step(batch, 1e-3);
        CHECK(run->loss_sum(batch) < expected.loss * static_cast<double>(batch.valid_tokens));
      }
    }
  }
}

TEST_CASE("#1492: stages know their shapes from the plan and send nothing but the schedule's messages",
          "[parallel][known][pipeline]") {
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  for (const PipelineSchedule schedule : kSchedules) {
    const ParallelSection parallel = with(schedule, {.dp_shard = 1, .pp = world().size()});
    CAPTURE(name_of(parallel));
    const ModelConfig model = model_of(true);
    const Traffic before = world().traffic();
    MeshRun run(world(), config_of(parallel), model);
    const auto moved = [&](Collective collective) {
      TrafficCounter counter = run->traffic()[collective];
      counter.calls -= before[collective].calls;
      counter.sent_bytes -= before[collective].sent_bytes;
      counter.received_bytes -= before[collective].received_bytes;
      return counter;
    };
    const auto messages = [&] { return moved(Collective::kPointToPoint); };
    CHECK(messages().calls == 0);  // stages are made and loaded without one
    const PipelinePlan plan = make_pipeline(run->layout().pipeline);
    const auto& mine = plan.ranks.at(static_cast<std::size_t>(run->layout().at.index("pp")));
    const auto planned = [&](PipelineOp activation, PipelineOp gradient) {
      return std::count_if(mine.begin(), mine.end(), [&](const PipelineStep& step) {
        return step.op == activation || step.op == gradient;
      });
    };
    const std::int64_t sends = planned(PipelineOp::kSendActivation, PipelineOp::kSendGradient);
    const std::int64_t receives = planned(PipelineOp::kReceiveActivation, PipelineOp::kReceiveGradient);
    const std::int64_t message_bytes = batch.seq_len * model.hidden_size * 8;
    for (std::int64_t step = 1; step <= 3; ++step) {  // the first is no different from the others
      run->gradients(batch);
      CHECK(messages().calls == step * (sends + receives));
      CHECK(messages().sent_bytes == step * sends * message_bytes);
      CHECK(messages().received_bytes == step * receives * message_bytes);
    }
    // The tied table's gradient is summed over the first and the last stage, and counted.
    const bool has_table = plan.shape.ranks == 2 || run->layout().at.index("table_copies") == 1 ||
                           run->layout().at.index("pp") == 0;
    const std::int64_t table_bytes = model.vocab_size * model.hidden_size * 8;
    CHECK((moved(Collective::kAllReduce).sent_bytes >= 3 * table_bytes) == has_table);
  }
}

TEST_CASE("#771: two runs of a pipeline have the same bits", "[parallel][known][pipeline]") {
  struct Run {
    std::vector<double> numbers;
    std::map<std::string, std::vector<double>> weights;
  };
  const auto five_steps = [](const ParallelSection& parallel) {
    RunConfig config = config_of(parallel);
    config.dtype = DType::kFloat32;
    config.training.clip_norm = 0.9;
    MeshRun mesh(world(), config, model_of(true));
    Run run;
    for (int step = 0; step < 5; ++step) {
      const StepResult result = mesh->step(mesh_batch(step, kRows, kLongest, true), 1e-3);
      CHECK(std::isfinite(result.loss));
      run.numbers.push_back(result.loss);
      run.numbers.push_back(result.grad_norm);
    }
    run.weights = mesh.weights();
    return run;
  };
  for (const ParallelSection& parallel : meshes()) {
    CAPTURE(name_of(parallel));
    const Run first = five_steps(parallel);
    const Run second = five_steps(parallel);
    CHECK(first.numbers == second.numbers);
    CHECK(first.weights == second.weights);
    CHECK(first.weights.empty() == (world().rank() != 0));
  }
}

TEST_CASE("Megatron #637, #525: a stage's memory is the plan's, and the dry run's that of the largest",
          "[parallel][known][pipeline]") {
  const Recompute recompute = GENERATE(Recompute::kNone, Recompute::kFull);
  // Rows as long as the plan assumes.
  const Batch batch = batch_of(std::vector<std::int64_t>(kRows, kLongest));
  std::vector<ParallelSection> all = meshes();
  if (world().size() > 2) {
    all.push_back(with(PipelineSchedule::kZeroBubble, {.dp_shard = 2, .pp = 2, .zero_stage = 2}));
    all.push_back(with(PipelineSchedule::kInterleaved, {.dp_shard = 1, .cp = 2, .pp = 2}));
  }
  for (const ParallelSection& parallel : all) {
    CAPTURE(name_of(parallel), parallel.zero_stage, enum_name(recompute));
    RunConfig config = config_of(parallel);
    config.training.recompute = recompute;
    const ModelConfig model = model_of(true);
    MeshRun run(world(), config, model);
    const SynchronousNeeds plan = measure_synchronous(config, model, run->layout());
    const auto& executor = dynamic_cast<PipelineExecutor&>(run->trainer().steps_executor());
    const auto* sharded = dynamic_cast<const ShardedStore*>(&run->store());
    const auto used_bytes = [&] {
      const ParameterSet& parameters = run->model().parameters();
      return parameters.value_bytes() + parameters.grad_bytes() + run->trainer().optimizer().state().bytes() +
             run->model().rope_bytes() + (sharded == nullptr ? 0 : sharded->device_bytes()) +
             executor.saved_high_water() + executor.scratch_high_water() + executor.message_bytes() +
             executor.batch_bytes();
    };
    CHECK(executor.arena_bytes() == plan.step.saved_bytes + plan.step.scratch_bytes);
    run->step(batch, 1e-3);
    run->loss_sum(batch);
    CHECK(executor.saved_high_water() == plan.step.saved_bytes);
    CHECK(executor.scratch_high_water() == plan.step.scratch_bytes);
    CHECK(executor.message_bytes() == plan.step.message_bytes);
    CHECK((sharded == nullptr ? 0 : sharded->device_bytes()) == plan.store_bytes);
    CHECK(world().all_reduce_value(used_bytes(), ReduceOp::kMax) ==
          make_plan(config, model, world().size()).trainer.total());
  }
}

TEST_CASE("marin #6532: weight gradients that are put off take no memory for each micro-batch",
          "[parallel][known][pipeline]") {
  const ModelConfig model = model_of(false);
  const auto needs_of = [&](std::int64_t micro_batches) {
    RunConfig config = config_of(with(PipelineSchedule::kZeroBubble, {.dp_shard = 1, .pp = world().size()}));
    config.training.batch_size = micro_batches;
    const MeshSizes sizes = resolve_mesh(config.parallel, world().size());
    return measure_synchronous(config, model, SynchronousLayout(config, model, sizes, world().rank()));
  };
  const std::int64_t few = 2 * world().size();
  const SynchronousNeeds of_few = needs_of(few);
  for (const std::int64_t many : {2 * few, 8 * few}) {
    const SynchronousNeeds of_many = needs_of(many);
    CHECK(of_many.step.saved_bytes == of_few.step.saved_bytes);
    CHECK(of_many.step.scratch_bytes == of_few.step.scratch_bytes);
    CHECK(of_many.step.message_bytes == of_few.step.message_bytes);
    CHECK(of_many.gradient_bytes == of_few.gradient_bytes);
  }
}

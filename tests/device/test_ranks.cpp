// RANKS 2 4
// TIMEOUT 300
// Ranks that share a device, or have one each: every way to divide a model, and a federated round, on device
// tensors, against one rank on the CPU. They travel over MPI, with COMM_BACKEND=nccl over NCCL, which may add
// in another order: without [bits]. Device memory that the host touches ends the test.
#include <algorithm>
#include <catch2/catch.hpp>

#include "caravan/backend/device_memory.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/federated/run_plan.h"
#include "caravan/ops/elementwise.h"
#include "device_ranks.h"
#include "support/federated_runs.h"
#include "support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kFloat32Tolerance = 1e-5;  // sums in another order
// Small, since kernels are slow here: two micro-batches for each of two copies.
constexpr std::int64_t kRows = 4;
constexpr std::int64_t kLongest = 10;

/// Divisions of two ranks; of four the rest is dp_shard.
std::vector<std::pair<std::string, ParallelSection>> divisions() {
  return {
      {"DDP", {.dp_replicate = 2, .dp_shard = -1, .zero_stage = 1}},
      {"ZeRO 1", {.dp_shard = -1, .zero_stage = 1}},
      {"ZeRO 2", {.dp_shard = -1, .zero_stage = 2}},
      {"ZeRO 3", {.dp_shard = -1}},
      {"tp", {.dp_shard = -1, .tp = 2, .sequence_parallel = false}},
      {"tp and sp", {.dp_shard = -1, .tp = 2}},
      {"cp by gathering", {.dp_shard = -1, .cp = 2}},
      {"cp by a ring", {.dp_shard = -1, .cp = 2, .context = ContextExchange::kRing}},
      {"pipeline", {.dp_shard = -1, .pp = 2}},
      {"interleaved pipeline",
       {.dp_shard = -1, .pp = 2, .pipeline_schedule = PipelineSchedule::kInterleaved, .stages_per_rank = 2}},
      {"offloaded", {.dp_shard = -1, .cpu_offload = CpuOffload::kParametersAndOptimizer}},
  };
}

RunConfig config_of(const ParallelSection& parallel) {
  RunConfig config = mesh_config(parallel, DType::kFloat32, kRows, kLongest);
  config.training.micro_batch = 1;
  return config;
}

RunConfig federated_config(const SharedFolder& folder, Communicator& world) {
  if (world.rank() == 0) {
    write_random_rows(folder / "train.jsonl", 12, 5, 256);
    write_random_rows(folder / "eval.jsonl", 3, 6, 256);
  }
  world.barrier();
  RunConfig config;
  config.dtype = DType::kFloat32;
  config.model.preset = "tiny";
  config.data.train = {folder / "train.jsonl"};
  config.data.eval = {folder / "eval.jsonl"};
  config.data.max_seq_len = 24;
  config.optimizer.lr = 1e-3;
  config.federated.batch_size = 3;
  config.output.dir = folder / "run";
  return config;
}

/// Another value of every parameter on every rank, exactly: what training makes of it, without rounding.
void change_slice(FederatedRun& run, int rank) {
  Context ctx = run.trainer().executor().context();
  for (const Parameter& parameter : run.slice().parameters().all()) {
    scale(ctx, {.x = parameter.stored_value(), .factor = 1.0 + 0.25 * rank});
  }
}

/// Every element of the aggregator's model; empty elsewhere.
std::vector<std::vector<float>> whole_model(FederatedRun& run) {
  std::vector<std::vector<float>> values;
  if (ParameterSet* const full = run.full_parameters()) {
    for (const Parameter& parameter : full->all()) {
      std::vector<float>& to =
          values.emplace_back(static_cast<std::size_t>(parameter.stored_value().numel()));
      copy_to_host(parameter.stored_value(), to.data());
    }
  }
  return values;
}

}  // namespace

TEST_CASE("on every mesh loss and gradients of devices are those of one rank on the CPU", "[ranks]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const Batch batch = mesh_batch(0, kRows, kLongest, false);
  SelfCommunicator alone;
  for (const auto& [name, parallel] : divisions()) {
    INFO(name);
    const ModelConfig model = mesh_model(false, parallel.stages_per_rank > 1 ? 4 : 2);
    const MeshGradients expected = MeshRun(alone, config_of({.dp_shard = 1}), model).gradients(batch);
    MeshRun run(*world, config_of(parallel), model, device_backend());
    const MeshGradients actual = run.gradients(batch);
    CHECK(std::abs(actual.loss - expected.loss) <= kFloat32Tolerance * std::abs(expected.loss));
    if (world->rank() == 0) {
      CHECK(actual.values.size() == expected.values.size());
    }
    for (const auto& [parameter, values] : actual.values) {
      INFO(parameter);
      CHECK(relative_difference(values, expected.values.at(parameter)) <= kFloat32Tolerance);
    }
  }
}

TEST_CASE("what a round collects from devices is what it collects from hosts, bit for bit", "[ranks][bits]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const auto on_host = MpiCommunicator::over_world();
  const SharedFolder folder(*on_host);
  RunConfig config = federated_config(folder, *on_host);
  const bool has_outer = GENERATE(false, true);
  if (has_outer) {
    config.federated.delta_scale = 0.5;
    config.federated.outer = {.momentum = 0.9, .nesterov = true, .lr = 0.7};
  }
  ReadyRun here(config, *on_host);
  ReadyRun there(config, *world, device_backend());
  for (std::int64_t round = 1; round <= 2; ++round) {
    change_slice(here.run, on_host->rank());
    change_slice(there.run, on_host->rank());
    here.run.collect(round);
    there.run.collect(round);
    REQUIRE(whole_model(here.run) == whole_model(there.run));
  }
}

TEST_CASE("a round of bfloat16 slices moves float32 masters, and values are their roundings", "[ranks]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const auto on_host = MpiCommunicator::over_world();
  const SharedFolder folder(*on_host);
  RunConfig config = federated_config(folder, *on_host);
  config.dtype = DType::kBFloat16;
  ReadyRun there(config, *world, device_backend());
  FederatedRun& run = there.run;
  REQUIRE(run.exact_slice().size() == run.slice().parameters().all().size());
  // A master per rank whose differences bfloat16 does not have: 2^-12 of the value.
  for (const TensorView& master : run.exact_slice()) {
    REQUIRE(master.dtype() == DType::kFloat32);
    HostDraft draft(master);
    for (std::int64_t i = 0; i < master.numel(); ++i) {
      draft.view().data<float>()[i] = 1.0F + static_cast<float>(world->rank()) * 0x1p-12F;
    }
    draft.commit();
  }
  run.collect(1);
  const float mean = 1.0F + static_cast<float>(world->size() - 1) * 0x1p-13F;
  const auto& parameters = run.slice().parameters().all();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    INFO(parameters[i].name());
    const bool is_split = parameters[i].spec().shard.is_split("slot");
    const HostCopy master(run.exact_slice()[i]);
    const HostCopy value(parameters[i].stored_value());
    const float expected = is_split ? 1.0F + static_cast<float>(world->rank()) * 0x1p-12F : mean;
    CHECK(master.view().data<float>()[0] == expected);
    CHECK(value.view().data<BFloat16>()[0].bits == to_bfloat16(expected).bits);
    if (world->rank() == SliceExchange::kAggregator) {
      const HostCopy full(run.exact_full()[i]);
      const HostCopy rounded(run.full_parameters()->all()[i].stored_value());
      const std::int64_t last = full.view().numel() - 1;  // of the last rank's part where it is cut
      CHECK(full.view().data<float>()[last] ==
            (is_split ? 1.0F + static_cast<float>(world->size() - 1) * 0x1p-12F : mean));
      CHECK(rounded.view().data<BFloat16>()[last].bits == to_bfloat16(full.view().data<float>()[last]).bits);
    }
  }
  const RunPlan plan = make_plan(config, there.inputs.model.config, world->size(), DeviceKind::kCuda);
  const auto planned = [](const RankMemory& memory, const std::string& name) {
    const auto found = std::find_if(memory.device.begin(), memory.device.end(),
                                    [&](const auto& category) { return category.first == name; });
    return found == memory.device.end() ? -1 : found->second;
  };
  CHECK(planned(plan.trainer, "AdamW moments") == run.trainer().optimizer().bytes());
  if (world->rank() == SliceExchange::kAggregator) {
    std::int64_t bytes = 0;
    for (const TensorView& exact : run.exact_full()) {
      bytes += exact.bytes();
    }
    CHECK(planned(plan.aggregator, "its float32 masters") == bytes);
    CHECK(planned(plan.aggregator, "full model (aggregator)") == run.full_parameters()->value_bytes());
    CHECK(planned(plan.aggregator, "evaluation scratch") > 0);
  }
}

TEST_CASE("rounds on devices with moving slots and kept moments are those of the CPU", "[ranks]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const auto on_host = MpiCommunicator::over_world();
  const SharedFolder folder(*on_host);
  RunConfig config = federated_config(folder, *on_host);
  config.federated.enable_swapping = true;
  config.federated.optimizer_state = OptimizerState::kKeep;
  ReadyRun here(config, *on_host);
  ReadyRun there(config, *world, device_backend());
  // AdamW divides by a gradient's size: where it is all rounding, a step may go the other way.
  constexpr double kLoss = 1e-4;
  for (std::int64_t round = 1; round <= 2; ++round) {
    here.train_round(round);
    there.train_round(round);
    const Evaluation expected = here.run.evaluate();
    const Evaluation actual = there.run.evaluate();
    CHECK(actual.tokens == expected.tokens);
    CHECK(std::abs(actual.loss - expected.loss) <= kLoss * expected.loss);
  }
}

TEST_CASE("offloaded, a bfloat16 model takes the steps that it takes on devices", "[ranks]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const ModelConfig model = mesh_model(false);
  const auto weights_after = [&](std::int64_t steps, CpuOffload offload) {
    RunConfig config =
        mesh_config({.dp_shard = -1, .cpu_offload = offload}, DType::kBFloat16, kRows, kLongest);
    config.training.micro_batch = 1;
    MeshRun run(*world, config, model, device_backend());
    for (std::int64_t step = 0; step < steps; ++step) {
      run->step(mesh_batch(step, kRows, kLongest, false), 1e-2);
    }
    return run.weights();
  };
  const auto start = weights_after(0, CpuOffload::kNone);
  const auto expected = weights_after(2, CpuOffload::kNone);
  const auto actual = weights_after(2, CpuOffload::kParametersAndOptimizer);
  REQUIRE(weights_after(0, CpuOffload::kParametersAndOptimizer) == start);
  for (const auto& [name, values] : expected) {
    INFO(name);
    CHECK(relative_difference(start.at(name), values) > 1e-2);  // the steps change something
    // Both update float32 masters by the same gradients; CPU and device round their last bits differently,
    // which seldom moves a rounding to bfloat16, of 2^-9 relative.
    CHECK(relative_difference(actual.at(name), values) <= 1e-3);
  }
}

TEST_CASE("weights rounded by chance have the same bits however they are divided", "[ranks]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const auto weights_of = [&](const ParallelSection& parallel) {
    RunConfig config = mesh_config(parallel, DType::kBFloat16, kRows, kLongest);
    config.training.micro_batch = kRows / 2;  // one: of several, stages sum over ranks earlier or later
    config.training.clip_norm.reset();        // norms are summed in the order of the shards
    config.optimizer.master_weights = false;
    MeshRun run(*world, config, mesh_model(false), device_backend());
    for (std::int64_t step = 0; step < 2; ++step) {
      run->step(mesh_batch(step, kRows, kLongest, false), 1e-2);
    }
    return run.weights();
  };
  if (world->size() > 2) {
    return;  // sums of more than two gradients depend on their order, too
  }
  const auto whole = weights_of({.dp_replicate = 2, .dp_shard = -1, .zero_stage = 1});
  CHECK(weights_of({.dp_shard = -1, .zero_stage = 1}) == whole);
  CHECK(weights_of({.dp_shard = -1, .zero_stage = 3}) == whole);
}

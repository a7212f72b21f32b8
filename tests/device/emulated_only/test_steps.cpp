// What a step on the device may not do, counted by the emulated one.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "../device_under_test.h"
#include "caravan/ops/elementwise.h"
#include "caravan/train/trainer.h"
#include "host_runner/emulated_device.h"
#include "host_runner/schedules.h"
#include "small_model.h"
#include "support/mesh_runs.h"
#include "support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

namespace {

RunConfig config_of(DType dtype) {
  RunConfig config = mesh_config({.dp_shard = 1}, dtype, 4, 12);
  config.training.micro_batch = 2;
  return config;
}

}  // namespace

TEST_CASE("after the first steps none allocates, and the host waits only for the results", "[device]") {
  SelfCommunicator alone;
  MeshRun run(alone, config_of(DType::kBFloat16), small_model(),
              make_cuda_backend(*device_under_test().runtime));
  for (std::int64_t step = 0; step < 2; ++step) {
    run->step(full_batch(step, 4, 12), 1e-3);
  }
  const host_runner::DeviceActivity before = host_runner::device_activity();
  run->step(full_batch(2, 4, 12), 1e-3);
  const host_runner::DeviceActivity after = host_runner::device_activity();
  CHECK(after.allocations == before.allocations);
  CHECK(after.synchronizations - before.synchronizations == 1);  // loss and norm, read together at its end
}

TEST_CASE("a replayed pass finds its scratch memory where it was, whatever came in between", "[device]") {
  SelfCommunicator alone;
  const auto losses_of = [&](std::unique_ptr<Backend> backend) {
    RunConfig config = config_of(DType::kFloat32);
    config.data.max_seq_len = 41;
    MeshRun run(alone, config, small_model(), std::move(backend));
    std::vector<double> losses;
    for (const std::int64_t longest : {4, 4, 40, 4}) {  // the longer rows need pages more of it
      losses.push_back(run->step(full_batch(0, 4, longest), 1e-3).loss);
    }
    return losses;
  };
  auto inner = make_cuda_backend(*device_under_test().runtime);
  const auto replayed = losses_of(make_cuda_backend(*device_under_test().runtime));
  CHECK(replayed == losses_of(std::make_unique<RecordingBackend>(*inner)));
}

TEST_CASE("replayed passes compute what passes op by op do, bit for bit", "[device]") {
  SelfCommunicator alone;
  const auto run_of = [&](std::unique_ptr<Backend> backend, bool replays) {
    MeshRun run(alone, config_of(DType::kFloat32), small_model(), std::move(backend));
    std::vector<double> results;
    for (std::int64_t step = 0; step < 4; ++step) {  // other batches, rates and divisors each time
      const StepResult result = run->step(full_batch(step, 4, 12), 1e-3 * static_cast<double>(step + 1));
      results.push_back(result.loss);
      results.push_back(result.grad_norm);
    }
    // Two micro-batches, which differ in being the last: each is recorded in the second step.
    CHECK(run->trainer().executor().recorded().replays() == (replays ? 2 * 3 : 0));
    return std::pair(results, run.weights());
  };
  auto inner = make_cuda_backend(*device_under_test().runtime);
  const auto replayed = run_of(make_cuda_backend(*device_under_test().runtime), true);
  const auto plain = run_of(std::make_unique<RecordingBackend>(*inner), false);
  CHECK(replayed == plain);
}

TEST_CASE("with --sync-kernels every kernel is waited for, and none is recorded", "[device]") {
  setenv("CARAVAN_SYNC_KERNELS", "1", 1);
  SelfCommunicator alone;
  MeshRun run(alone, config_of(DType::kFloat32), small_model(),
              make_cuda_backend(*device_under_test().runtime));
  unsetenv("CARAVAN_SYNC_KERNELS");
  for (std::int64_t step = 0; step < 3; ++step) {
    run->step(full_batch(step, 4, 12), 1e-3);
  }
  CHECK(run->trainer().executor().recorded().replays() == 0);
}

TEST_CASE("steps have the same bits in whatever order blocks and threads run", "[device]") {
  SelfCommunicator alone;
  const DType dtype = GENERATE(DType::kFloat32, DType::kBFloat16);
  std::optional<std::pair<std::vector<double>, std::map<std::string, std::vector<double>>>> first;
  for_each_schedule([&] {
    RunConfig config = config_of(dtype);
    config.training.dropout = 0.1;
    MeshRun run(alone, config, small_model(), make_cuda_backend(*device_under_test().runtime));
    std::vector<double> results;
    for (std::int64_t step = 0; step < 2; ++step) {
      const StepResult result = run->step(full_batch(step, 4, 12), 1e-2);
      results.push_back(result.loss);
      results.push_back(result.grad_norm);
    }
    auto outcome = std::pair(results, run.weights());
    if (!first) {
      first = std::move(outcome);
    } else {
      CHECK(outcome == *first);
    }
  });
}

TEST_CASE("a step that is not finite leaves weights on the device alone, and its culprit is named",
          "[device]") {
  const DType dtype = GENERATE(DType::kFloat32, DType::kBFloat16, DType::kFloat16);
  SelfCommunicator alone;
  MeshRun run(alone, config_of(dtype), small_model(), make_cuda_backend(*device_under_test().runtime));
  run->load([](const Context& ctx, const std::vector<ParameterShard>& shards) {
    initialise(ctx, shards, 5);
    double nan = std::nan("");
    for (const ParameterShard& shard : shards) {
      if (shard.parameter->name() == "norm.weight") {
        copy(ctx, {.from = TensorView(&nan, DType::kFloat64, {1}), .to = shard.value.rows(0, 1)});
      }
    }
  });
  const auto before = run.weights();
  for (std::int64_t step = 0; step < 3; ++step) {  // op by op, recorded, replayed
    CHECK_THROWS_WITH(run->step(full_batch(step, 4, 12), 1e-3),
                      Catch::Contains("the loss is nan") && Catch::Contains("the parameter norm.weight"));
  }
  CHECK(run->trainer().optimizer().steps() == 0);
  for (const auto& [name, values] : run.weights()) {
    CHECK(std::memcmp(values.data(), before.at(name).data(), values.size() * sizeof(double)) == 0);
  }
}

TEST_CASE("in float16 steps that overflow are skipped until the scale fits, and training goes on",
          "[device]") {
  SelfCommunicator alone;
  RunConfig config = config_of(DType::kFloat16);
  config.training.loss_scale = {.initial = 16777216.0, .growth_interval = 3};
  MeshRun run(alone, config, small_model(), make_cuda_backend(*device_under_test().runtime));
  const auto start = run.weights();
  const Adamw& optimizer = run->trainer().optimizer();
  double scale = 16777216.0;
  std::int64_t skipped = 0;
  std::vector<double> losses;
  for (std::int64_t step = 0; step < 16; ++step) {
    const StepResult result = run->step(full_batch(0, 4, 12), 1e-2);
    CHECK(result.loss_scale == scale);
    CHECK(std::isfinite(result.loss));
    CHECK(result.updated == !result.is_skipped);
    if (result.is_skipped) {
      CHECK_FALSE(std::isfinite(result.grad_norm));
      CHECK(optimizer.update_state().loss_scale == scale / 2);
      ++skipped;
    } else {
      CHECK(std::isfinite(result.grad_norm));
      CHECK(optimizer.update_state().loss_scale >= scale);
    }
    if (skipped == step + 1) {
      CHECK(run.weights() == start);
    }
    scale = optimizer.update_state().loss_scale;
    losses.push_back(result.loss);
  }
  CHECK(skipped >= 2);
  CHECK(skipped <= 12);
  CHECK(optimizer.update_state().skipped == skipped);
  CHECK(optimizer.steps() == 16 - skipped);
  CHECK(run->trainer().steps() == 16);
  CHECK(losses.back() < 0.9 * losses.front());
}

TEST_CASE("gradients that overflow whatever the scale end the run", "[device]") {
  SelfCommunicator alone;
  RunConfig config = config_of(DType::kFloat16);
  config.training.loss_scale.initial = 1.0;
  MeshRun run(alone, config, small_model(), make_cuda_backend(*device_under_test().runtime));
  run->load([](const Context& ctx, const std::vector<ParameterShard>& shards) {
    initialise(ctx, shards, 5);
    // A stream of about 1e-6 is divided by the root of eps, 1/316, and so is its gradient; what follows makes
    // logits of it again that are no larger than 50.
    for (const ParameterShard& shard : shards) {
      const std::string& name = shard.parameter->name();
      const bool is_last = name == "norm.weight" || name == "output.weight";
      const bool writes_stream = name.find("wo.") != std::string::npos ||
                                 name.find("w2.") != std::string::npos || name == "tok_embeddings.weight";
      scale(ctx, {.x = shard.value,
                  .factor = name == "norm.weight" ? 3000.0
                            : is_last             ? 300.0
                            : writes_stream       ? 1e-4
                                                  : 1.0});
    }
  });
  CHECK_THROWS_WITH(
      run->step(full_batch(0, 4, 12), 1e-3),
      Catch::StartsWith("the gradient norm is nan at local step 1: the first value that is not finite is in "
                        "the gradient of layers.1.feed_forward.w2.weight; a smaller optimizer.lr"));
}

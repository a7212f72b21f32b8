// A whole model on the device against the CPU: loss, every gradient, steps of AdamW, in float32 and bfloat16.
#include <algorithm>
#include <catch2/catch.hpp>

#include "device_under_test.h"
#include "support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// float32 on both sides: sums in another order.
constexpr double kFloat32Tolerance = 1e-5;
// bfloat16 activations and weights: each of the about 20 ops from the loss to a gradient rounds to 2^-9
// relative, errors that add up at random: 2^-9 · sqrt(20) ≈ 0.009 of a gradient's norm. Weights are equal on
// both sides before their rounding, which is another 2^-9 each.
constexpr double kBFloat16Loss = 2e-3;
constexpr double kBFloat16Gradient = 3e-2;
// float16 has three more digits, and a loss scale that keeps its gradients above its least number.
constexpr double kFloat16Loss = kBFloat16Loss / 8;
constexpr double kFloat16Gradient = kBFloat16Gradient / 8;

std::unique_ptr<Backend> device_backend() {
  return make_cuda_backend(*device_under_test().runtime);
}

RunConfig config_of(DType dtype, Recompute recompute = Recompute::kNone) {
  RunConfig config = mesh_config({.dp_shard = 1}, dtype, 4, 24);
  config.training.micro_batch = 2;
  config.training.recompute = recompute;
  return config;
}

void check_gradients(const MeshGradients& actual, const MeshGradients& expected, double loss,
                     double gradient) {
  CHECK(std::abs(actual.loss - expected.loss) <= loss * std::abs(expected.loss));
  CHECK(actual.values.size() == expected.values.size());
  for (const auto& [name, values] : expected.values) {
    INFO(name);
    CAPTURE(relative_difference(actual.values.at(name), values));
    CHECK(relative_difference(actual.values.at(name), values) <= gradient);
  }
}

}  // namespace

TEST_CASE("loss and every gradient on the device are those of the CPU", "[training]") {
  if (!device_or_skip()) {
    return;
  }
  SelfCommunicator alone;
  const bool is_tied = GENERATE(false, true);
  const bool is_packed = GENERATE(false, true);
  const ModelConfig model = mesh_model(is_tied);
  const Batch batch = mesh_batch(0, 4, 24, is_packed);
  INFO("tied " << is_tied << ", packed " << is_packed);
  const MeshGradients expected = MeshRun(alone, config_of(DType::kFloat32), model).gradients(batch);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    MeshRun run(alone, config_of(DType::kFloat32, recompute), model, device_backend());
    check_gradients(run.gradients(batch), expected, kFloat32Tolerance, kFloat32Tolerance);
  }
  MeshRun run(alone, config_of(DType::kBFloat16), model, device_backend());
  check_gradients(run.gradients(batch), expected, kBFloat16Loss, kBFloat16Gradient);
  RunConfig half = config_of(DType::kFloat16);
  half.training.loss_scale.initial = 1024.0;
  MeshRun in_float16(alone, half, model, device_backend());
  check_gradients(in_float16.gradients(batch), expected, kFloat16Loss, kFloat16Gradient);
}

TEST_CASE("weights rounded by chance learn as those with masters do", "[training]") {
  if (!device_or_skip()) {
    return;
  }
  SelfCommunicator alone;
  const Batch batch = mesh_batch(0, 2, 12, false);
  const auto losses_of = [&](bool has_masters) {
    RunConfig config = mesh_config({.dp_shard = 1}, DType::kBFloat16, 2, 12);
    config.optimizer.master_weights = has_masters;
    MeshRun run(alone, config, mesh_model(false), device_backend());
    std::vector<double> losses;
    for (int step = 0; step < 12; ++step) {
      losses.push_back(run->step(batch, 1e-3).loss);
    }
    return losses;
  };
  const std::vector<double> with_masters = losses_of(true);
  const std::vector<double> by_chance = losses_of(false);
  CHECK(with_masters.back() < 0.8 * with_masters.front());
  CHECK(by_chance.front() == with_masters.front());  // the same weights
  CHECK(by_chance != with_masters);
  // A step of 1e-3 and the rounding of weights of about 0.1, 2^-9 of them each time: noise of a fifth of the
  // step per weight, which differs from weight to weight and mostly cancels in a loss.
  for (std::size_t step = 0; step < with_masters.size(); ++step) {
    CAPTURE(step, with_masters[step], by_chance[step]);
    CHECK(std::abs(by_chance[step] - with_masters[step]) <= 0.03 * with_masters[step]);
  }
}

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
}

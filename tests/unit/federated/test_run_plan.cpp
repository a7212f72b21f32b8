#include "caravan/federated/run_plan.h"

#include <catch2/catch.hpp>

#include "caravan/config/model_config.h"

using namespace caravan;

TEST_CASE("a training checkpoint is planned as it is written: masters and moments are never 16 bits",
          "[plan]") {
  const ModelConfig model = *model_preset("tiny");
  const auto bytes_per_parameter = [&](DType dtype, bool has_masters) {
    RunConfig config;
    config.mode = TrainMode::kSynchronous;
    config.dtype = dtype;
    config.training.steps = 1;
    config.optimizer.master_weights = has_masters;
    const DeviceKind kind = dtype_bytes(dtype) == 2 ? DeviceKind::kCuda : DeviceKind::kCpu;
    const RunPlan plan = make_plan(config, model, 1, kind);
    CHECK(plan.checkpoint_bytes % plan.parameters == 0);
    return plan.checkpoint_bytes / plan.parameters;
  };
  CHECK(bytes_per_parameter(DType::kFloat64, true) == 24);
  CHECK(bytes_per_parameter(DType::kFloat32, true) == 12);
  CHECK(bytes_per_parameter(DType::kBFloat16, true) == 12);
  CHECK(bytes_per_parameter(DType::kBFloat16, false) == 10);
  CHECK(bytes_per_parameter(DType::kFloat16, true) == 12);
}

// RANKS 1 2
// Whose attention a run computes with: what is asked for, what there is, and that all ranks agree.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "../cudnn_under_test.h"
#include "caravan/comm/mpi_session.h"
#include "src/app/compute_attention.h"
#include "src/app/failure.h"

using namespace caravan;
using namespace caravan::app;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

RunConfig config_of(AttentionChoice attention) {
  RunConfig config;
  config.mode = TrainMode::kSynchronous;
  config.dtype = DType::kBFloat16;
  config.attention = attention;
  config.model.preset = "tiny";
  config.data.max_seq_len = 13;
  config.training.batch_size = 4;
  config.training.micro_batch = 2;
  return config;
}

RunPlan plan_of(const RunConfig& config, Communicator& world) {
  return make_plan(config, *model_preset("tiny"), world.size());
}

Communicator& the_world() {
  return MpiSession::current().world();
}

/// The choice where this rank is told to look at `place`.
ComputeAttention choose(const RunConfig& config, const std::string& place, RunPlan& plan, DeviceChoice on) {
  setenv("CARAVAN_CUDNN", place.c_str(), 1);
  const ComputeDevice device = open_compute_device(on, config.dtype, the_world());
  ComputeAttention chosen = choose_attention(device, config, plan, the_world());
  chosen.cudnn.reset();  // before its device
  return chosen;
}

std::int64_t scratch_of_cudnn(const RankMemory& memory) {
  for (const auto& [name, bytes] : memory.device) {
    if (name == "scratch of cuDNN") {
      return bytes;
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("own attention asks for nothing and is named", "[attention][choice]") {
  const RunConfig config = config_of(AttentionChoice::kOwn);
  RunPlan plan = plan_of(config, the_world());
  CHECK(choose(config, "/nowhere", plan, DeviceChoice::kCuda).description == "Caravan's own kernels");
  CHECK(scratch_of_cudnn(plan.aggregator) == 0);
}

TEST_CASE("cuDNN is named with its version, and its memory is in the plan", "[attention][choice]") {
  const RunConfig config = config_of(AttentionChoice::kCudnn);
  RunPlan plan = plan_of(config, the_world());
  const ModelConfig model = *model_preset("tiny");
  const AttentionShape& shape = plan.attention;
  CHECK(shape.batch == 2);
  CHECK(shape.query_len == 12);
  CHECK(shape.key_len == 12);
  CHECK(shape.n_heads == model.n_heads);
  CHECK(shape.n_kv_heads == model.n_kv_heads);
  CHECK(shape.head_dim == model.head_dim);
  CHECK(choose(config, CARAVAN_FAKE_CUDNN, plan, DeviceChoice::kCuda).description ==
        fmt::format("cuDNN 9.19.0 ({})", CARAVAN_FAKE_CUDNN));
  // The fake's 1000 bytes and delta, a float for each row of each head.
  const std::int64_t delta = (4 * shape.batch * shape.n_heads * 12 + 255) / 256 * 256;
  CHECK(scratch_of_cudnn(plan.aggregator) == 1000 + delta);
  CHECK(scratch_of_cudnn(plan.trainer) == 1000 + delta);
}

TEST_CASE("a rank without a cuDNN, or with another one, ends the run on all ranks by its name",
          "[attention][choice]") {
  const RunConfig config = config_of(AttentionChoice::kCudnn);
  RunPlan plan = plan_of(config, the_world());
  const int last = the_world().size() - 1;
  const bool is_last = the_world().rank() == last;
  const std::string who = last == 0 ? "" : fmt::format("rank {} on ", last);
  const std::string place = is_last ? "/nowhere/libcudnn.so.9" : CARAVAN_FAKE_CUDNN;
  CHECK_THROWS_WITH(choose(config, place, plan, DeviceChoice::kCuda),
                    StartsWith("attention is cudnn, but " + who) &&
                        Contains("no cuDNN that can be used; tried /nowhere/libcudnn.so.9 (no such file); "
                                 "install cuDNN 9, name its "
                                 "folder in CARAVAN_CUDNN, or set attention to own"));
  for (const auto& [what, words] :
       {std::pair{"Create", "cudnnCreate (planned_attention.cpp:"},
        std::pair{"plan", "cuDNN 9.19.0 has no kernel for this attention on this GPU; set attention: own"}}) {
    if (is_last) {
      setenv("FAKE_CUDNN_FAIL", what, 1);
    }
    CHECK_THROWS_WITH(choose(config, CARAVAN_FAKE_CUDNN, plan, DeviceChoice::kCuda),
                      StartsWith("attention is cudnn, but " + who) && Contains(words));
    unsetenv("FAKE_CUDNN_FAIL");
  }
  if (last > 0) {
    setenv("FAKE_CUDNN_VERSION", is_last ? "91200" : "91900", 1);
    CHECK_THROWS_WITH(choose(config, CARAVAN_FAKE_CUDNN, plan, DeviceChoice::kCuda),
                      Contains("is cuDNN 9.12.0 and rank 0 has 9.19.0: all ranks need one version"));
    unsetenv("FAKE_CUDNN_VERSION");
  }
  CHECK(scratch_of_cudnn(plan.aggregator) == 0);
}

TEST_CASE("cuDNN for ranks that compute on CPUs, and for heads it does not take, is refused",
          "[attention][choice]") {
  RunConfig config = config_of(AttentionChoice::kCudnn);
  RunPlan plan = plan_of(config, the_world());
  CHECK_THROWS_WITH(
      choose(config, CARAVAN_FAKE_CUDNN, plan, DeviceChoice::kCpu),
      "attention is cudnn, which computes on GPUs, but the ranks compute on CPUs; set attention to own, "
      "or device to cuda");
  ModelConfig model = *model_preset("tiny");
  CHECK_NOTHROW(check_attention(config, model));
  model.head_dim = 160;
  CHECK_THROWS_WITH(
      check_attention(config, model),
      "attention is cudnn, which takes heads of up to 128 in multiples of 8, but this model's are of "
      "160; set attention to own");
  config.attention = AttentionChoice::kOwn;
  CHECK_NOTHROW(check_attention(config, model));
}

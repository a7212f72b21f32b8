// cuDNN's attention inside of training steps: recorded passes, batches it does not take, shapes it has no
// kernel for.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "../cudnn_under_test.h"
#include "caravan/train/trainer.h"
#include "host_runner/attention_problem.h"
#include "host_runner/emulated_device.h"
#include "small_model.h"
#include "support/mesh_runs.h"
#include "support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 4;
constexpr std::int64_t kMicroBatch = 2;
constexpr std::int64_t kLongest = 10;

RunConfig config_of() {
  RunConfig config = mesh_config({.dp_shard = 1}, DType::kBFloat16, kRows, kLongest);
  config.training.micro_batch = kMicroBatch;
  return config;
}

AttentionShape largest_shape() {
  return attention_shape(kMicroBatch, kLongest, kLongest, 2, 1, 16);
}

/// Rows of kLongest tokens: one document each, or two.
Batch full_batch(std::int64_t number, bool is_packed) {
  std::vector<TokenRow> made;
  const CounterRng rng(11, static_cast<std::uint64_t>(number));
  std::uint64_t at = 0;
  for (std::int64_t row = 0; row < kRows; ++row) {
    TokenRow& tokens = made.emplace_back();
    for (const std::int64_t length :
         is_packed ? std::vector{kLongest / 2, kLongest / 2} : std::vector{kLongest}) {
      std::vector<std::int32_t> ids;
      for (std::int64_t i = 0; i <= length; ++i) {
        ids.push_back(static_cast<std::int32_t>(rng.uniform(at++) * 67));
      }
      tokens.append_document(ids);
    }
  }
  return make_batch(made, 0);
}

std::unique_ptr<Backend> device_with(std::unique_ptr<cudnn::PlannedAttention> attention) {
  return make_cuda_backend(*device_under_test().runtime, std::move(attention));
}

/// A variable of the fake's for the length of a scope.
class Fake {
 public:
  Fake(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Fake() { unsetenv(name_); }
  Fake(const Fake&) = delete;
  Fake& operator=(const Fake&) = delete;
  Fake(Fake&&) = delete;
  Fake& operator=(Fake&&) = delete;

 private:
  const char* name_;
};

}  // namespace

TEST_CASE("steps with cuDNN's attention replay, allocate nothing and wait for nothing more", "[cudnn]") {
  const auto library = cudnn_or_skip();
  SelfCommunicator alone;
  MeshRun run(alone, config_of(), small_model(), device_with(cudnn_attention(library, largest_shape())));
  for (std::int64_t step = 0; step < 2; ++step) {
    run->step(full_batch(step, false), 1e-3);
  }
  const std::int64_t executed = fake_executions(*library);
  const host_runner::DeviceActivity before = host_runner::device_activity();
  run->step(full_batch(2, false), 1e-3);
  const host_runner::DeviceActivity after = host_runner::device_activity();
  CHECK(after.allocations == before.allocations);
  CHECK(after.synchronizations - before.synchronizations <= 2 * 2 + 1);
  CHECK(run->trainer().executor().recorded().replays() == 2 * 2);
  CHECK(fake_executions(*library) == executed + 2 * 2 * 2);  // micro-batches, layers, passes
}

TEST_CASE("batches of one shape that are and are not plainly causal are not replayed for each other",
          "[cudnn]") {
  const auto library = cudnn_or_skip();
  SelfCommunicator alone;
  const auto results_of = [&](std::unique_ptr<Backend> backend) {
    MeshRun run(alone, config_of(), small_model(), std::move(backend));
    std::vector<double> results;
    for (const bool is_packed : {false, false, true, false, true, true, false}) {
      const auto number = static_cast<std::int64_t>(results.size());
      const StepResult result = run->step(full_batch(number, is_packed), 1e-2);
      results.push_back(result.loss);
      results.push_back(result.grad_norm);
    }
    return std::pair(results, run.weights());
  };
  auto inner = device_with(cudnn_attention(library, largest_shape()));
  const auto plain = results_of(std::make_unique<RecordingBackend>(*inner));
  inner.reset();
  const auto replayed = results_of(device_with(cudnn_attention(library, largest_shape())));
  CHECK(replayed == plain);
}

TEST_CASE("what is not plainly causal is computed by Caravan's own kernels, bit for bit", "[cudnn]") {
  const auto library = cudnn_or_skip();
  SelfCommunicator alone;
  const Batch packed = full_batch(0, true);
  const auto own = MeshRun(alone, config_of(), small_model(), device_with(nullptr)).gradients(packed);
  MeshRun run(alone, config_of(), small_model(), device_with(cudnn_attention(library, largest_shape())));
  const std::int64_t before = fake_executions(*library);
  const MeshGradients gradients = run.gradients(packed);
  CHECK(fake_executions(*library) == before);
  CHECK(gradients.loss == own.loss);
  CHECK(gradients.values == own.values);
  run.gradients(full_batch(0, false));
  CHECK(fake_executions(*library) == before + 8);
}

TEST_CASE("a later shape without a kernel, or one that wants more memory, falls to own kernels", "[cudnn]") {
  const auto library = cudnn_or_skip();
  SelfCommunicator alone;
  const Batch batch = mesh_batch(0, kRows, kLongest - 2, false);  // shorter rows: another shape
  REQUIRE(batch.seq_len < kLongest);
  ModelConfig model = small_model();
  model.vocab_size = 251;
  const auto own = MeshRun(alone, config_of(), model, device_with(nullptr)).gradients(batch);
  const auto [name, value] =
      GENERATE(std::pair("FAKE_CUDNN_FAIL", "plan"), std::pair("FAKE_CUDNN_WORKSPACE", "100000"));
  INFO(name);
  MeshRun run(alone, config_of(), model, device_with(cudnn_attention(library, largest_shape())));
  const std::int64_t before = fake_executions(*library);
  const Fake fake(name, value);
  CHECK(run.gradients(batch).values == own.values);
  CHECK(fake_executions(*library) == before);
}

TEST_CASE("an error of cuDNN's ends the step with call, place and remedy", "[cudnn]") {
  const auto library = cudnn_or_skip();
  SelfCommunicator alone;
  MeshRun run(alone, config_of(), small_model(), device_with(cudnn_attention(library, largest_shape())));
  const Fake fake("FAKE_CUDNN_FAIL", "BackendExecute");
  CHECK_THROWS_WITH(
      run.gradients(full_batch(0, false)),
      Catch::StartsWith("cudnnBackendExecute (graph.cpp:") && Catch::EndsWith("another cuDNN 9"));
}

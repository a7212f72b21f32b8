#include "caravan/config/run_config.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <limits>

using namespace caravan;

namespace {

RunConfig good() {
  RunConfig config;
  config.model.preset = "tiny";
  config.data.train = {"train.jsonl"};
  config.data.eval = {"eval.jsonl"};
  return config;
}

}  // namespace

TEST_CASE("a configuration with weights and data has no problems", "[config][run]") {
  CHECK(find_problems(good()).empty());
  RunConfig config = good();
  config.mode = TrainMode::kSynchronous;
  config.data.eval.clear();
  CHECK(find_problems(config).empty());
}

TEST_CASE("values that came from code are checked like those from files", "[config][run]") {
  const double infinity = std::numeric_limits<double>::infinity();
  struct Case {
    std::function<void(RunConfig&)> spoil;
    std::string key;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[&](auto& c) { c.optimizer.lr = infinity; }, "optimizer.lr", "is inf; it must be a finite number"},
      {[&](auto& c) { c.optimizer.lr = -infinity; }, "optimizer.lr", "is -inf; it must be a finite number"},
      {[](auto& c) { c.federated.delta_scale = std::numeric_limits<double>::quiet_NaN(); },
       "federated.delta_scale", "is nan; it must be a finite number"},
      {[](auto& c) { c.optimizer.betas[1] = -0.1; }, "optimizer.betas",
       "is -0.1; it must be at least 0 and less than 1"},
      {[](auto& c) { c.optimizer.no_decay.resize(1); }, "optimizer.no_decay",
       "is empty; leave the key out or give a text"},
      {[](auto& c) { c.federated.outer.lr = 0.0; }, "federated.outer.lr", "is 0; it must be greater than 0"},
      {[](auto& c) { c.dtype = DType::kInt32; }, "dtype",
       "is int32; use float32, float64, bfloat16 or float16"},
      {[](auto& c) { c.optimizer.master_weights = false; }, "optimizer.master_weights",
       "is false, which is for dtype bfloat16, and dtype is float32; leave it out, or set dtype to bfloat16"},
      {[](auto& c) {
         c.mode = TrainMode::kSynchronous;
         c.dtype = DType::kBFloat16;
         c.optimizer.master_weights = false;
         c.parallel.cpu_offload = CpuOffload::kOptimizer;
       },
       "optimizer.master_weights",
       "is false, but CPUs update what parallel.cpu_offload offloads, and round to the nearest; leave one of "
       "them out"},
      {[](auto& c) {
         c.dtype = DType::kBFloat16;
         c.optimizer.master_weights = false;
       },
       "optimizer.master_weights",
       "is false, which mode synchronous knows; leave it out, or set mode to synchronous"},
      {[](auto& c) {
         c.mode = TrainMode::kSynchronous;
         c.dtype = DType::kFloat16;
         c.training.loss_scale.initial = 0.5;
       },
       "training.loss_scale.initial", "is 0.5; it must be from 1 to 16777216"},
      {[](auto& c) { c.training.loss_scale.initial = 1024.0; }, "training.loss_scale.initial",
       "is 1024, which is for dtype float16, and dtype is float32; leave it out, or set dtype to float16"},
      {[](auto& c) {
         c.dtype = DType::kBFloat16;
         c.training.loss_scale.growth_interval = 10;
       },
       "training.loss_scale.growth_interval",
       "is 10, which is for dtype float16, and dtype is bfloat16; leave it out, or set dtype to float16"},
      {[](auto& c) { c.training.clip_norm = 0.0; }, "training.clip_norm", "is 0; it must be greater than 0"},
      {[](auto& c) {
         c.mode = TrainMode::kSynchronous;
         c.data.eval.clear();
         c.training.eval_every = 5;
       },
       "data.eval", "is missing, but training.eval_every is 5"},
      {[](auto& c) { c.data.eval.clear(); }, "data.eval",
       "is missing; every round is evaluated on held-out samples"},
  };
  for (const Case& one : cases) {
    RunConfig config = good();
    one.spoil(config);
    const auto problems = find_problems(config);
    INFO(one.key);
    REQUIRE(problems.size() == 1);
    CHECK(problems.front().key == one.key);
    CHECK(problems.front().message == one.message);
  }
}

TEST_CASE("the loss scale may be chosen in float16", "[config][run]") {
  RunConfig config = good();
  config.mode = TrainMode::kSynchronous;
  config.dtype = DType::kFloat16;
  config.training.loss_scale = {.initial = 1024.0, .growth_interval = 10};
  CHECK(find_problems(config).empty());
}

TEST_CASE("cuDNN's attention is refused where it cannot compute, all reasons at once", "[config][run]") {
  RunConfig config = good();
  config.mode = TrainMode::kSynchronous;
  config.attention = AttentionChoice::kCudnn;
  config.dtype = DType::kBFloat16;
  CHECK(find_problems(config).empty());
  config.dtype = DType::kFloat32;
  config.device = DeviceChoice::kCpu;
  config.parallel.cp = 2;
  config.data.pack = true;
  const auto problems = find_problems(config);
  const std::vector<std::string> expected = {
      "is cudnn, which computes on GPUs, but device is cpu; set it to cuda, or set attention to own",
      "is cudnn, which computes in 16 bits, but dtype is float32; set it to bfloat16, or set attention to "
      "own",
      "is cudnn, which wants whole rows, but parallel.cp is 2; set it to 1, or set attention to own",
      "is cudnn, which takes one document in a row, but data.pack is true; set it to false, or set attention "
      "to own"};
  REQUIRE(problems.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(problems[i].key == "attention");
    CHECK(problems[i].message == expected[i]);
  }
  config.attention = AttentionChoice::kOwn;
  CHECK(find_problems(config).empty());
}

TEST_CASE("graphs are refused where the host takes part in a step, all reasons at once", "[config][run]") {
  RunConfig config = good();
  config.mode = TrainMode::kSynchronous;
  config.cuda_graphs = GraphChoice::kAlways;
  CHECK(find_problems(config).empty());
  config.device = DeviceChoice::kCpu;
  config.parallel.cpu_offload = CpuOffload::kOptimizer;
  config.comm.backend = CommBackend::kMpi;
  const auto problems = find_problems(config);
  const std::vector<std::string> expected = {
      "is always, but device is cpu, which has none; set it to auto, or device to cuda",
      "is always, but with parallel.cpu_offload optimizer the host computes within a step; set it to auto, "
      "or "
      "parallel.cpu_offload to none",
      "is always, but comm.backend is mpi, in whose exchanges the host takes part; set it to auto, or "
      "comm.backend to nccl"};
  REQUIRE(problems.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(problems[i].key == "cuda_graphs");
    CHECK(problems[i].message == expected[i]);
  }
  config.mode = TrainMode::kFederated;  // whose ranks step alone
  const auto federated = find_problems(config);
  CHECK(std::count_if(federated.begin(), federated.end(),
                      [](const ConfigProblem& problem) { return problem.key == "cuda_graphs"; }) == 1);
  config.mode = TrainMode::kSynchronous;
  config.cuda_graphs = GraphChoice::kNever;
  CHECK(find_problems(config).empty());
}

TEST_CASE("exactly one source of weights may be given", "[config][run]") {
  RunConfig config = good();
  config.model.preset.reset();
  REQUIRE(find_problems(config).size() == 1);
  CHECK(find_problems(config).front().key == "model");
  for (const bool has_checkpoint : {true, false}) {
    config = good();
    (has_checkpoint ? config.model.checkpoint : config.model.config).emplace(1, 'x');
    REQUIRE(find_problems(config).size() == 1);
    CHECK(find_problems(config).front().message.find("keep one") != std::string::npos);
  }
  config.model.preset.reset();
  CHECK(find_problems(config).empty());
}

TEST_CASE("resume is never, latest or a folder", "[config][run]") {
  RunConfig config = good();
  CHECK(resume_choice(config) == Resume::kNever);
  config.resume = "latest";
  CHECK(resume_choice(config) == Resume::kLatest);
  CHECK(find_problems(config).empty());
  config.resume = "./latest";
  CHECK(resume_choice(config) == Resume::kFolder);
  REQUIRE(find_problems(config).size() == 1);  // federated rounds lie in output.dir
  CHECK(find_problems(config)[0].key == "resume");
  config.mode = TrainMode::kSynchronous;
  CHECK(find_problems(config).empty());
}

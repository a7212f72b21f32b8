// RANKS 1 2
// Learning rates and recomputation in federated rounds: which rates a run records and keeps over a resume,
// and that recomputing changes no bit.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <set>
#include <sstream>

#include "caravan/federated/local_schedule.h"
#include "caravan/optim/schedule.h"
#include "kernels/reference/scalar.h"
#include "support/federated_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

RunConfig scheduled_config(const SharedFolder& folder, Communicator& world) {
  if (world.rank() == 0) {
    write_random_rows(folder / "train.jsonl", 26, 5, 256);
    write_random_rows(folder / "eval.jsonl", 9, 6, 256);
  }
  world.barrier();
  RunConfig config;
  config.dtype = DType::kFloat64;
  config.model.preset = "tiny";
  config.data.train = {folder / "train.jsonl"};
  config.data.eval = {folder / "eval.jsonl"};
  config.data.max_seq_len = 24;
  config.optimizer.lr = 2e-3;
  config.optimizer.schedule = {LrSchedule::kCosine, 7, {}, 0.1};
  config.federated.rounds = 3;
  config.federated.local_epochs = 2;
  config.federated.batch_size = 3;
  config.output.dir = folder / "run";
  return config;
}

void check_rates(const std::vector<StepRecord>& steps, const OptimizerSection& optimizer,
                 std::int64_t total) {
  REQUIRE(static_cast<std::int64_t>(steps.size()) == total);
  for (std::int64_t i = 0; i < total; ++i) {
    CAPTURE(i);
    CHECK(steps[static_cast<std::size_t>(i)].lr == scheduled_lr(optimizer, i + 1, total));
  }
}

std::string weights_of(const RunConfig& config, Communicator& world, std::int64_t round) {
  const std::filesystem::path folder = RunRecorder::checkpoint_folder(config, world.size(), round);
  return read_text((folder / "consolidated.00.pth").string());
}

}  // namespace

TEST_CASE("a schedule runs over the local steps of all rounds", "[federated][schedule]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  const RunConfig config = scheduled_config(folder, world);
  const RunResult result = run_federated_config(config, world);
  if (world.rank() == 0) {
    const std::int64_t samples = 26 / world.size();
    check_rates(result.steps, config.optimizer, 3 * 2 * ((samples + 2) / 3));
  }
}

TEST_CASE("with packing a schedule ends with the run all the same", "[federated][schedule]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = scheduled_config(folder, world);
  config.data.pack = true;
  const RunResult result = run_federated_config(config, world);
  if (world.rank() == 0) {
    const auto total = static_cast<std::int64_t>(result.steps.size());
    CHECK(total < LocalSchedule::most_steps(config, 26 / world.size()));
    check_rates(result.steps, config.optimizer, total);
  }
}

TEST_CASE("a run resumed in the middle of its schedule gives the bits of the uninterrupted one",
          "[federated][schedule][resume]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = scheduled_config(folder, world);
  config.data.pack = GENERATE(false, true);
  config.training.dropout = GENERATE(0.0, 0.2);
  const RunResult whole = run_federated_config(config, world);
  const std::string weights = world.rank() == 0 ? weights_of(config, world, 3) : "";
  world.barrier();
  if (world.rank() == 0) {  // as if it had been killed in round 2
    for (const std::int64_t round : {2, 3}) {
      std::filesystem::remove_all(RunRecorder::checkpoint_folder(config, world.size(), round));
    }
  }
  world.barrier();
  config.resume = "latest";
  const RunResult resumed = run_federated_config(config, world);
  if (world.rank() == 0) {
    CHECK(resumed.history == whole.history);
    REQUIRE(resumed.steps.size() == whole.steps.size());
    for (std::size_t i = 0; i < whole.steps.size(); ++i) {
      CHECK(resumed.steps[i].lr == whole.steps[i].lr);
      CHECK(resumed.steps[i].loss == whole.steps[i].loss);
    }
    CHECK(weights_of(config, world, 3) == weights);
  }
}

TEST_CASE("with dropout every rank draws masks of its own in every step of all rounds",
          "[federated][dropout]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = scheduled_config(folder, world);
  config.training.dropout = 0.2;
  ReadyRun ready(config, world);
  std::string keys;
  std::int64_t steps = 0;
  for (const std::int64_t round : {1, 2}) {
    ready.run.train_round(round, [&](const FederatedRun::StepInfo&) {
      const std::uint64_t key = ready.run.trainer().executor().context().scalars.dropout_key;
      keys += fmt::format("{} ", key);
      ++steps;
    });
  }
  std::set<std::string> different;
  for (const std::string& of_rank : world.gather_bytes(keys, 0)) {
    std::istringstream words(of_rank);
    different.insert(std::istream_iterator<std::string>(words), {});
  }
  const std::int64_t all_steps = world.all_reduce_value(steps);
  if (world.rank() == 0) {
    CHECK(std::ssize(different) == all_steps);
  }
}

TEST_CASE("every slice is clipped by its own norm", "[federated][clip]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = scheduled_config(folder, world);
  config.training.clip_norm = 0.05;
  config.training.micro_batch = 1;
  ReadyRun ready(config, world);
  double first_norm = 0.0;
  double moment_norm = 0.0;
  ready.run.train_round(1, [&](const FederatedRun::StepInfo& info) {
    if (first_norm == 0.0) {  // m is (1 - beta1) times the clipped gradient now
      first_norm = info.result.grad_norm;
      double squares = 0.0;
      for (const Adamw::Entry& entry : ready.run.trainer().optimizer().entries()) {
        for (const double m : reference::elements<double>(entry.m)) {
          squares += m * m;
        }
      }
      moment_norm = std::sqrt(squares);
    }
  });
  CHECK(first_norm > 2 * config.training.clip_norm.value());
  CHECK(moment_norm == Approx((1.0 - config.optimizer.betas[0]) * 0.05).epsilon(1e-5));
  const double most = world.all_reduce_value(first_norm, ReduceOp::kMax);
  const double sum = world.all_reduce_value(first_norm, ReduceOp::kSum);
  CHECK((world.size() == 1 || most > 1.001 * sum / world.size()));
}

TEST_CASE("recomputing changes no bit of a federated run", "[federated][recompute]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = scheduled_config(folder, world);
  config.output.name = "same";  // the checkpoint's folder name is then the same
  std::vector<RunResult> results;
  std::vector<std::string> weights;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    config.training.recompute = recompute;
    config.output.dir = folder / fmt::format("run{}", static_cast<int>(recompute));
    results.push_back(run_federated_config(config, world));
    weights.push_back(world.rank() == 0 ? weights_of(config, world, 3) : "");
  }
  for (std::size_t i = 1; i < results.size(); ++i) {
    CHECK(results[i].history == results[0].history);
    CHECK(weights[i] == weights[0]);
  }
}

// RANKS 1 2 4
// What a user relies on in federated rounds beyond the references: resuming bit for bit, who sends what,
// which memory is needed, and what each option of our own does.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <set>

#include "support/federated_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

RunConfig small_config(const SharedFolder& folder, Communicator& world) {
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
  config.federated.rounds = 4;
  config.federated.batch_size = 3;
  config.output.dir = folder / "run";
  return config;
}

void check_same_bits(const RunResult& a, const RunResult& b) {
  REQUIRE(a.history.size() == b.history.size());
  CHECK(a.history == b.history);
  REQUIRE(a.steps.size() == b.steps.size());
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    CHECK(a.steps[i].step == b.steps[i].step);
    CHECK(a.steps[i].loss == b.steps[i].loss);
    CHECK(a.steps[i].grad_norm == b.steps[i].grad_norm);
  }
}

std::string file_bytes(const std::string& folder, const char* name) {
  return read_text((std::filesystem::path(folder) / name).string());
}

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

}  // namespace

TEST_CASE("a run resumed after any round gives the bits of the uninterrupted one", "[federated][resume]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  const RunConfig base = small_config(folder, world);
  const int variant = GENERATE(0, 1, 2, 3);
  RunConfig whole = base;
  whole.federated.enable_swapping = world.size() > 1;
  if (variant == 1) {
    whole.federated.optimizer_state = OptimizerState::kKeep;
    whole.federated.outer = {.momentum = 0.5, .nesterov = true, .lr = 0.9};
  } else if (variant == 2) {
    whole.federated.delta_scale = 0.5;
    whole.federated.rescale = true;
    whole.federated.enable_swapping = false;
  } else if (variant == 3) {
    whole.dtype = DType::kFloat32;
    whole.model.tie_embeddings = Tie::kTied;
    whole.federated.save_every_round = false;
  }
  whole.output.dir = folder / "whole";
  const RunResult expected = run_federated_config(whole, world);
  for (const std::int64_t stop : {1, 2, 3}) {
    RunConfig parts = whole;
    parts.output.dir = folder / fmt::format("parts{}", stop);
    parts.output.name = "whole";  // the checkpoint's folder name is then the same
    parts.federated.rounds = stop;
    run_federated_config(parts, world);
    parts.federated.rounds = 4;
    parts.resume = "latest";
    const RunResult resumed = run_federated_config(parts, world);
    if (world.rank() == 0) {
      CAPTURE(variant, stop);
      check_same_bits(resumed, expected);
      CHECK(file_bytes(RunRecorder::checkpoint_folder(parts, world.size(), 4), "consolidated.00.pth") ==
            file_bytes(RunRecorder::checkpoint_folder(whole, world.size(), 4), "consolidated.00.pth"));
      CHECK(names_in(parts.output.dir) ==
            std::set<std::string>{"checkpoints", "results.h5", round_log_name(world.size(), 4)});
      const std::size_t per_round = variant == 1 ? 2 : 1;  // with the state beside it
      CHECK(names_in(parts.output.dir + "/checkpoints").size() == (variant == 3 ? 1 : 4 * per_round));
    }
  }
}

TEST_CASE("resuming with another configuration is refused and names the key", "[federated][resume]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = small_config(folder, world);
  config.federated.rounds = 1;
  run_federated_config(config, world);
  config.resume = "latest";
  config.federated.rounds = 2;
  CHECK(find_resume_state(config, world.size()).has_value());
  config.optimizer.lr = 3e-3;
  CHECK_THROWS_WITH(find_resume_state(config, world.size()),
                    Catch::Contains("optimizer.lr was 0.002 and is 0.003 now"));
  config.optimizer.lr = 2e-3;
  CHECK_THROWS_WITH(find_resume_state(config, world.size() + 1), Catch::Contains("was made by"));
  config.output.dir = folder / "elsewhere";
  CHECK_FALSE(find_resume_state(config, world.size()).has_value());
}

TEST_CASE("without swapping only split values travel up and nothing but means comes back",
          "[federated][traffic]") {
  Communicator& world = MpiSession::current().world();
  if (world.size() == 1) {
    return;
  }
  const SharedFolder folder(world);
  const RunConfig config = small_config(folder, world);
  ReadyRun ready(config, world);
  FederatedRun& run = ready.run;
  world.reset_traffic();
  ready.train_round(1);
  std::int64_t split = 0;
  for (const Parameter& parameter : run.slice().parameters().all()) {
    split += parameter.spec().shard.is_split("slot") ? parameter.stored_value().bytes() : 0;
  }
  const Traffic traffic = world.traffic();
  CHECK(traffic[Collective::kScatterv].sent_bytes + traffic[Collective::kBroadcast].sent_bytes == 0);
  const std::int64_t moved = world.rank() == 0
                                 ? traffic[Collective::kGatherv].received_bytes / (world.size() - 1)
                                 : traffic[Collective::kGatherv].sent_bytes;
  CHECK(moved == split);
}

TEST_CASE("the assembled model holds every rank's slice where it belongs, and means elsewhere",
          "[federated]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = small_config(folder, world);
  config.federated.enable_swapping = true;
  ReadyRun ready(config, world);
  FederatedRun& run = ready.run;
  for (std::int64_t round = 1; round <= 3; ++round) {
    ready.train_round(round);
    CHECK(run.slot() == (world.rank() + round / 2) % world.size());
    // Every rank gets the full model and compares its own slice.
    for (std::size_t i = 0; i < run.slice().parameters().all().size(); ++i) {
      const Parameter& mine = run.slice().parameters().all()[i];
      std::vector<double> whole(static_cast<std::size_t>(mine.spec().shape.numel()));
      const TensorView view(whole.data(), DType::kFloat64, mine.spec().shape);
      if (world.rank() == 0) {
        const TensorView full = run.full_parameters()->all()[i].stored_value();
        std::copy(full.data<double>(), full.data<double>() + full.numel(), whole.begin());
      }
      world.broadcast(view, 0);
      TensorView part = view;
      for (int dim = 0; dim < view.rank(); ++dim) {
        const Range& range = mine.region()[static_cast<std::size_t>(dim)];
        part = part.slice(dim, range.begin, range.end);
      }
      bool is_equal = true;
      const std::int64_t columns = part.rank() == 2 ? part.dim(1) : 1;
      for (std::int64_t e = 0; e < part.numel(); ++e) {
        const double there =
            part.data<double>()[e / columns * part.stride(0) + (part.rank() == 2 ? e % columns : 0)];
        is_equal = is_equal && there == mine.stored_value().data<double>()[e];
      }
      CAPTURE(mine.name(), round, world.rank());
      CHECK(is_equal);
    }
  }
}

TEST_CASE("kept optimizer state goes with its slot", "[federated][optimizer_state]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = small_config(folder, world);
  config.federated.enable_swapping = true;
  config.federated.optimizer_state = OptimizerState::kKeep;
  ReadyRun ready(config, world);
  FederatedRun& run = ready.run;
  ready.train_round(1);
  const auto state_bytes = [&] {
    const TensorView state = run.trainer().optimizer().state();
    return std::string(static_cast<const char*>(state.raw()), static_cast<std::size_t>(state.bytes()));
  };
  const std::string mine = state_bytes();
  const std::int64_t steps = run.trainer().optimizer().steps();
  std::vector<std::string> by_rank = world.gather_bytes(mine, 0);
  ready.config.federated.local_epochs = 0;  // the next round only moves the slots
  ready.train_round(2);
  CHECK(run.slot() == (world.rank() + 1) % world.size());
  std::string expected;
  for (int rank = 0; rank < world.size(); ++rank) {  // slot s was trained by rank s in round 1
    std::string state = world.rank() == 0 ? by_rank[static_cast<std::size_t>(rank)] : "";
    world.broadcast_bytes(state, 0);
    expected = rank == run.slot() ? state : expected;
  }
  CHECK(state_bytes() == expected);
  CHECK(run.trainer().optimizer().steps() == steps);  // the parts have equal numbers of batches
  if (world.size() > 1) {
    CHECK(expected != mine);
  }
}

TEST_CASE("the plan's activation and scratch bytes are what a run uses", "[federated][memory]") {
  Communicator& world = MpiSession::current().world();
  const SharedFolder folder(world);
  RunConfig config = small_config(folder, world);
  config.federated.rescale = true;
  if (world.rank() == 0) {  // rows as long as the plan assumes
    std::string text;
    for (int row = 0; row < 24; ++row) {
      text += "{\"ids\": [";
      for (int i = 0; i < 30; ++i) {
        text += fmt::format("{}{}", i > 0 ? "," : "", (row * 7 + i) % 250);
      }
      text += "]}\n";
    }
    write_text(folder / "train.jsonl", text);
  }
  world.barrier();
  ReadyRun ready(config, world);
  FederatedRun& run = ready.run;
  ready.train_round(1);
  Executor& executor = run.trainer().executor();
  Batch batch;
  ready.train.start_epoch(0);
  REQUIRE(ready.train.next(batch));
  executor.loss(batch);
  CHECK(executor.saved_high_water() + executor.scratch_high_water() == executor.arena_bytes());
}

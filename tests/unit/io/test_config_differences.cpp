#include "caravan/io/config_differences.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "caravan/io/yaml_config.h"

using namespace caravan;

namespace {

RunConfig sample() {
  RunConfig config;
  config.mode = TrainMode::kSynchronous;
  config.model.preset = "tiny";
  config.data.train = {"a.jsonl"};
  config.data.eval = {"b.jsonl"};
  return config;
}

void check_refused(const std::string& override_text, const std::string& words) {
  const std::string stored = to_yaml(sample());
  const RunConfig now = parse_run_config(stored, "now", {override_text});
  CHECK_THROWS_AS(check_resumable(stored, "runs/x/checkpoints/step_00000010", now), ConfigError);
  CHECK_THROWS_WITH(check_resumable(stored, "runs/x/checkpoints/step_00000010", now),
                    Catch::Contains("this is not the run of runs/x/checkpoints/step_00000010: " + words));
}

}  // namespace

TEST_CASE("differences are named by their keys, in the order of the configuration",
          "[io][config_differences]") {
  RunConfig now = sample();
  CHECK(config_differences(sample(), now).empty());
  now.seed = 7;
  now.federated.outer.momentum = 0.5;
  now.data.eval = {"c: d"};
  using D = ConfigDifference;
  CHECK(config_differences(sample(), now) == std::vector<D>{{"seed", "42", "7"},
                                                            {"data.eval", "[b.jsonl]", "[\"c: d\"]"},
                                                            {"federated.outer.momentum", "0.0", "0.5"}});
  constexpr std::array<std::string_view, 2> kIgnored = {"federated", "see"};
  CHECK(config_differences(sample(), now, kIgnored).size() == 2);
  CHECK(D{"seed", "42", "7"}.str() == "seed was 42 and is 7 now");
}

TEST_CASE("values that a mode does not use are listed where they are not the defaults",
          "[io][config_differences]") {
  RunConfig config = sample();
  CHECK(unused_values(config).empty());
  TrainingSection& training = config.training;
  training.steps = 7;
  training.epochs = 2;
  training.batch_size = 64;
  training.batch_size_per_rank = 8;
  training.eval_every = 5;
  config.checkpoint = {.every = 10, .keep = 1, .is_async = true};
  CHECK(unused_values(config).empty());
  config.federated.rounds = 3;
  config.federated.outer.momentum = 0.5;
  CHECK(unused_values(config) == "federated.rounds (3), federated.outer.momentum (0.5)");
  config.mode = TrainMode::kFederated;
  CHECK(
      unused_values(config) ==
      "training.steps (7), training.epochs (2), training.batch_size (64), training.batch_size_per_rank (8), "
      "training.eval_every (5), checkpoint.every (10), checkpoint.keep (1), checkpoint.async (true)");
  training = {};
  training.micro_batch = 2;
  training.clip_norm = 1.0;
  training.recompute = Recompute::kFull;
  training.dropout = 0.1;
  config.checkpoint = {};
  CHECK(unused_values(config).empty());
}

TEST_CASE("a run may go on with what changes how it computes, and not what", "[io][config_differences]") {
  const std::string stored = to_yaml(sample());
  for (const char* text : {"device=cuda", "cuda_graphs=never", "threads=3", "comm.backend=mpi",
                           "training.recompute=full", "parallel.tp=2"}) {
    INFO(text);
    CHECK(check_resumable(stored, "runs/x/checkpoints/step_00000010", parse_run_config(stored, "now", {text}))
              .empty());
  }
}

TEST_CASE("every key of the effective configuration is compared", "[io][config_differences]") {
  const std::string text = to_yaml(sample());
  const auto values = config_values(sample());
  const auto lines = std::count(text.begin(), text.end(), '\n');
  const auto sections = std::count_if(text.begin(), text.end(), [&, at = std::size_t{0}](char) mutable {
    const bool is_section = text.compare(at, 2, ":\n") == 0;
    ++at;
    return is_section;
  });
  CHECK(static_cast<std::ptrdiff_t>(values.size()) == lines - sections);
  CHECK(std::find(values.begin(), values.end(),
                  std::pair<std::string, std::string>("checkpoint.keep", "3")) != values.end());
}

TEST_CASE("steps, layout, checkpoints and output may change on resume", "[io][config_differences]") {
  const std::string stored = to_yaml(sample());
  for (const char* change :
       {"training.steps=500", "training.eval_every=3", "output.dir=elsewhere", "output.name=x", "threads=2",
        "parallel.tp=2", "training.micro_batch=1", "training.recompute=full", "comm.timeout_seconds=9",
        "checkpoint.every=5", "checkpoint.keep=1", "checkpoint.async=true", "federated.rounds=9"}) {
    CAPTURE(change);
    const RunConfig now = parse_run_config(stored, "now", {change});
    CHECK(to_yaml(now) != stored);
    CHECK(check_resumable(stored, "there", now).empty());
  }
}

TEST_CASE("model, data, seed, dtype, batch and kind of optimizer may not change on resume",
          "[io][config_differences]") {
  check_refused("seed=7", "seed was 42 and is 7 now");
  check_refused("dtype=float64", "dtype was float32 and is float64 now");
  check_refused("model.preset=tiny-tied", "model.preset was tiny and is tiny-tied now");
  check_refused("model.tie_embeddings=true", "model.tie_embeddings was auto and is true now");
  check_refused("data.train=[a.jsonl,b.jsonl]", "data.train was [a.jsonl] and is [a.jsonl, b.jsonl] now");
  check_refused("data.pack=true", "data.pack was false and is true now");
  check_refused("training.batch_size=8", "training.batch_size was null and is 8 now");
  const std::string stored = to_yaml(sample());
  RunConfig now = sample();
  now.optimizer.name = "sgd";
  now.optimizer.lr = 1.0;
  CHECK_THROWS_WITH(check_resumable(stored, "there", now),
                    Catch::Contains("optimizer.name was adamw and is sgd now"));
  RunConfig narrow = sample();
  narrow.dtype = DType::kBFloat16;
  const std::string with_masters = to_yaml(narrow);
  narrow.optimizer.master_weights = false;
  CHECK_THROWS_WITH(check_resumable(with_masters, "there", narrow),
                    Catch::Contains("optimizer.master_weights was true and is false now"));
}

TEST_CASE("the optimizer's values may change and are said", "[io][config_differences]") {
  const std::string stored = to_yaml(sample());
  const RunConfig now =
      parse_run_config(stored, "now", {"optimizer.lr=0.5", "training.clip_norm=1.0", "training.dropout=0.1"});
  const auto changed = check_resumable(stored, "there", now);
  REQUIRE(changed.size() == 3);
  CHECK(changed[0].str() == "optimizer.lr was 1.0e-05 and is 0.5 now");
  CHECK(changed[1].str() == "training.clip_norm was null and is 1.0 now");
  CHECK(changed[2].str() == "training.dropout was 0.0 and is 0.1 now");
}

TEST_CASE("a stored configuration that cannot be read names the checkpoint", "[io][config_differences]") {
  CHECK_THROWS_WITH(check_resumable("seed: [", "runs/x/step_00000010", sample()),
                    Catch::Contains("runs/x/step_00000010"));
  CHECK_THROWS_WITH(check_resumable("sed: 3", "runs/x/step_00000010", sample()),
                    Catch::Contains("runs/x/step_00000010"));
}

#include "caravan/federated/resume.h"

#include <array>
#include <filesystem>
#include <string_view>

#include "caravan/core/error.h"
#include "caravan/federated/round_state.h"
#include "caravan/io/config_differences.h"
#include "caravan/io/results_file.h"
#include "caravan/io/yaml_config.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

/// What may change when a run goes on. The number of ranks is compared by itself.
constexpr std::array<std::string_view, 12> kMayChange = {"resume",
                                                         "device",
                                                         "attention",
                                                         "cuda_graphs",
                                                         "threads",
                                                         "comm",
                                                         "training.recompute",
                                                         "output",
                                                         "checkpoint",
                                                         "federated.world_size",
                                                         "federated.rounds",
                                                         "federated.save_every_round"};

/// Throws unless the run that left `found` (a file or folder) is this one.
void check_same_run(const RunConfig& config, std::int64_t ranks, const std::string& found,
                    const std::string& old_config, std::int64_t old_ranks) {
  if (old_ranks != ranks) {
    fail<ConfigError>("resume: {} was made by {} rank{}, this run has {}; start it with the same number",
                      found, old_ranks, old_ranks == 1 ? "" : "s", ranks);
  }
  const auto differences = config_differences(parse_run_config(old_config, found, {}), config, kMayChange);
  if (!differences.empty()) {
    fail<ConfigError>(
        "resume: this is not the run of {}: {}; put the old value back, or choose another output.dir", found,
        differences.front().str());
  }
}

/// Without a checkpoint the run starts afresh over its own remains, never over another run's results. Round 1
/// may have been evaluated: its checkpoint comes after that.
void check_nothing_is_lost(const RunConfig& config, std::int64_t ranks) {
  if (!holds_results(config.output.dir)) {
    return;
  }
  const std::string path = (fs::path(config.output.dir) / kResultsFileName).string();
  const ResultsContent content = read_results(path, UnequalColumns::kCutToShortest);
  check_same_run(config, ranks, path, content.attributes.config, content.attributes.experiment.world_size);
  if (content.history.size() > 2) {
    fail<IoError>(
        "resume: {} holds {} finished rounds, but their checkpoints are gone from {}; put the last one back, "
        "or start again with resume: never and --overwrite",
        path, content.history.size() - 1, (fs::path(config.output.dir) / kCheckpointsFolder).string());
  }
}

void check_results(const RunConfig& config, const FoundCheckpoint& state) {
  const std::string path = (fs::path(config.output.dir) / kResultsFileName).string();
  const ResultsContent content = read_results(path, UnequalColumns::kCutToShortest);
  const auto rounds = static_cast<std::int64_t>(content.history.size()) - 1;
  const auto steps = static_cast<std::int64_t>(content.steps.size());
  if (rounds < *state.record.round || steps < state.record.step_records) {
    fail<IoError>(
        "resume: {} has {} rounds and {} steps, fewer than {} says; it is an older file: put back the one "
        "that belongs to the checkpoint, or start again in another output.dir",
        path, rounds, steps, state.folder);
  }
}

}  // namespace

std::optional<FoundCheckpoint> find_resume_state(const RunConfig& config, std::int64_t ranks) {
  std::optional<FoundCheckpoint> newest = latest_checkpoint(config.output.dir);
  if (!newest) {
    check_nothing_is_lost(config, ranks);
    return newest;
  }
  const RunRecord& record = newest->record;
  if (!record.round) {
    fail<ConfigError>("resume: {} is a checkpoint of a synchronous run; choose another output.dir",
                      newest->folder);
  }
  check_same_run(config, ranks, newest->folder, record.config, record.experiment.world_size);
  if (*record.round > config.federated.rounds) {
    fail<ConfigError>("resume: federated.rounds is {}, but {} has finished {}; give at least as many",
                      config.federated.rounds, newest->folder, *record.round);
  }
  check_results(config, *newest);
  return newest;
}

ModelSource open_resume_model(const FoundCheckpoint& state, const RunConfig& config,
                              const ModelConfig& model) {
  ModelSection section;
  section.checkpoint = state.folder;
  section.tie_embeddings = model.tie_embeddings ? Tie::kTied : Tie::kUntied;
  ModelSource source = open_model(section, nullptr);
  check_tensors(*source.files, expected_tensors(model, DType::kFloat32));
  check_round_state(round_state_folder(state.folder), config, state.record.experiment.world_size);
  return source;
}

}  // namespace caravan

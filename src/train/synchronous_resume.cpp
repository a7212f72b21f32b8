#include "caravan/train/synchronous_resume.h"

#include <filesystem>
#include <limits>

#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/checkpoint_store.h"
#include "caravan/io/config_differences.h"
#include "caravan/io/results_file.h"
#include "caravan/io/run_folder.h"
#include "caravan/io/yaml_config.h"
#include "caravan/parallel/mesh_layout.h"
#include "caravan/train/checkpointing.h"
#include "caravan/train/synchronous_training.h"
#include "caravan/train/training_checkpoint.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string checkpoints_folder(const RunConfig& config) {
  return (fs::path(config.output.dir) / kCheckpointsFolder).string();
}

/// results.h5 of the run that wrote the checkpoint at `path`: <output.dir>/checkpoints/step_N.
std::string results_beside(const std::string& path) {
  const fs::path given = fs::path(path).lexically_normal();
  const fs::path folder = given.has_filename() ? given : given.parent_path();  // "step_00000004/"
  return (folder / ".." / ".." / kResultsFileName).lexically_normal().string();
}

/// The same configuration with the samples of a step said in one way, whatever the number of ranks.
RunConfig with_batch_size(RunConfig config, std::int64_t ranks) {
  config.training.batch_size = batch_geometry(config, resolve_mesh(config.parallel, ranks)).batch_size;
  config.training.batch_size_per_rank.reset();
  return config;
}

/// Throws unless a run with `config` may go on from what was made by `stored` on `stored_ranks`.
std::vector<ConfigDifference> check_same_run(const RunConfig& config, std::int64_t ranks,
                                             const std::string& found, const std::string& stored,
                                             std::int64_t stored_ranks) {
  return check_resumable(to_yaml(with_batch_size(parse_run_config(stored, found, {}), stored_ranks)), found,
                         with_batch_size(config, ranks));
}

void check_data(const ShardedCheckpointReader& checkpoint, const char* key,
                const std::optional<Dataset>& now) {
  const auto& extra = checkpoint.state().extra;
  const auto compare = [&](const std::string& stored_under, const std::string& text, const char* what) {
    const auto before = extra.find(stored_under);
    if (before != extra.end() && before->second != text) {
      fail<IoError>("resume: {}: {} had {}{} and has {} now; put the old files back, or start a new run",
                    checkpoint.folder(), key, what, before->second, text);
    }
  };
  if (now) {
    compare(key, data_text(*now), "");
    compare(data_checksum_key(key), checksum_text(now->checksum()), "samples with the checksum ");
  }
}

void check_steps(const ShardedCheckpointReader& checkpoint, const RunInputs& inputs, std::int64_t ranks) {
  const std::int64_t done = checkpoint.state().step;
  const bool is_known = inputs.train || !inputs.config.training.epochs;
  const std::int64_t samples = inputs.train ? inputs.train->size() : 0;
  const std::int64_t most = most_synchronous_steps(inputs.config, ranks, samples);
  if (is_known && done > most) {
    fail<ConfigError>("resume: the run is to have {} steps, but {} has finished {}; give at least as many",
                      most, checkpoint.folder(), done);
  }
}

void check_results(const ShardedCheckpointReader& checkpoint) {
  const std::string path = results_beside(checkpoint.folder());
  if (!fs::exists(path)) {
    return;
  }
  const ResultsContent content = read_results(path, UnequalColumns::kCutToShortest);
  const TrainingState& state = checkpoint.state();
  const auto evaluations = static_cast<std::int64_t>(content.history.size());
  const auto steps = static_cast<std::int64_t>(content.steps.size());
  if (evaluations < state.history_records || steps < state.step_records) {
    fail<IoError>(
        "resume: {} has {} evaluations and {} steps, fewer than {} says; it is an older file: put back the "
        "one "
        "that belongs to the checkpoint",
        path, evaluations, steps, checkpoint.folder());
  }
}

/// Without a checkpoint the run starts afresh over its own first steps, never over another run's results nor
/// over checkpoints that only seem lost.
void check_nothing_is_lost(const RunConfig& config, std::int64_t ranks) {
  const std::string folder = checkpoints_folder(config);
  if (const auto steps = step_folders(folder); !steps.empty()) {
    fail<IoError>(
        "resume: none of the {} checkpoints in {} can be used, {} the newest of them; put an intact one "
        "there, "
        "or start again with resume: never and --overwrite",
        steps.size(), folder, steps.front().path);
  }
  const std::string path = (fs::path(config.output.dir) / kResultsFileName).string();
  if (!fs::exists(path)) {
    return;
  }
  const ResultsContent content = read_results(path, UnequalColumns::kCutToShortest);
  const RunAttributes& attributes = content.attributes;
  check_same_run(config, ranks, path, attributes.config, attributes.experiment.world_size);
  // Written in the background, a checkpoint is complete before the next one is begun.
  const std::int64_t every = parse_run_config(attributes.config, path, {}).checkpoint.every;
  const auto steps = static_cast<std::int64_t>(content.steps.size());
  if (!attributes.end_time.empty() || (every > 0 && steps > 2 * every)) {
    fail<IoError>(
        "resume: {} holds {} finished steps, but their checkpoints are gone from {}; put the last one back, "
        "or "
        "start again with resume: never and --overwrite",
        path, steps, folder);
  }
}

}  // namespace

bool is_checkpoint_of_run(const std::string& path, const RunConfig& config) {
  return fs::weakly_canonical(results_beside(path)) ==
         fs::weakly_canonical(fs::absolute(config.output.dir) / kResultsFileName);
}

std::unique_ptr<ShardedCheckpointReader> find_training_checkpoint(const RunConfig& config,
                                                                  Communicator& world) {
  return resume_choice(config) == Resume::kFolder ? open_checked_checkpoint(config.resume, world)
                                                  : find_latest_checkpoint(checkpoints_folder(config), world);
}

void check_training_checkpoint(const ShardedCheckpointReader* checkpoint, const RunInputs& inputs,
                               std::int64_t ranks) {
  if (checkpoint == nullptr) {
    check_nothing_is_lost(inputs.config, ranks);
    return;
  }
  const TrainingState& state = checkpoint->state();
  for (const ConfigDifference& difference :
       check_same_run(inputs.config, ranks, checkpoint->folder(), state.config, state.ranks)) {
    log::info("resume: {}", difference.str());
  }
  check_steps(*checkpoint, inputs, ranks);
  check_data(*checkpoint, kTrainDataKey, inputs.train);
  check_data(*checkpoint, kEvalDataKey, inputs.eval);
  check_tensors(*checkpoint, inputs.model.config, inputs.config);
  training_position(*checkpoint);
  check_results(*checkpoint);
}

void check_still_there(const ShardedCheckpointReader* checkpoint, const RunInputs& inputs,
                       std::int64_t ranks) {
  const RunConfig& config = inputs.config;
  const bool has_changed = checkpoint != nullptr
                               ? !has_manifest(checkpoint->folder()) ||
                                     read_manifest(checkpoint->folder()).id != checkpoint->manifest().id
                               : !step_folders(checkpoints_folder(config)).empty();
  if (has_changed) {
    fail<ConfigError>("resume: another run changed output.dir {} while this one started; start it again",
                      config.output.dir);
  }
  if (checkpoint == nullptr) {
    check_nothing_is_lost(config, ranks);
  }
}

std::unique_ptr<RunRecorder::ResumePoint> results_to_resume(const ShardedCheckpointReader& checkpoint,
                                                            const RunConfig& config) {
  const std::string results = results_beside(checkpoint.folder());
  if (!fs::exists(results)) {
    log::warning("resume: {} is not there; {} will begin with step {}", results,
                 (fs::path(config.output.dir) / kResultsFileName).string(), checkpoint.state().step + 1);
    return nullptr;
  }
  const TrainingState& state = checkpoint.state();
  return std::make_unique<RunRecorder::ResumePoint>(
      RunRecorder::ResumePoint{state.history_records, state.step_records, results});
}

void drop_later_checkpoints(const ShardedCheckpointReader& checkpoint, const RunConfig& config) {
  if (resume_choice(config) == Resume::kLatest) {
    set_aside_later(checkpoints_folder(config), checkpoint.state().step);
  } else if (is_checkpoint_of_run(checkpoint.folder(), config)) {
    keep_newest(checkpoints_folder(config), std::numeric_limits<std::int64_t>::max(),
                checkpoint.state().step);
  }
}

}  // namespace caravan

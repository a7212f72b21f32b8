#include "caravan/federated/federated_training.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "caravan/core/log.h"
#include "caravan/federated/round_state.h"
#include "caravan/io/run_folder.h"
#include "caravan/io/yaml_config.h"
#include "caravan/train/save_model.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

/// The configuration as text without what may change when a run goes on.
std::string comparable(RunConfig config) {
  config.resume = Resume::kNever;
  config.threads.reset();
  config.output = {};
  config.federated.rounds = 0;
  config.federated.save_every_round = true;
  return to_yaml(config);
}

/// The first line that differs, as "key: value" of either side.
std::string first_difference(const std::string& before, const std::string& now) {
  std::istringstream left(before);
  std::istringstream right(now);
  std::string section;
  std::string a;
  std::string b;
  while (std::getline(left, a) && std::getline(right, b)) {
    if (a != b) {
      return fmt::format("{}: it was '{}' and is '{}' now", section, a, b);
    }
    if (!a.empty() && a.front() != ' ') {
      section = a.substr(0, a.find(':'));
    }
  }
  return "the number of keys differs";
}

void check_same_configuration(const RunConfig& config, const std::string& stored, const std::string& where) {
  const std::string old_text = comparable(parse_run_config(stored, where, {}));
  const std::string new_text = comparable(config);
  if (old_text != new_text) {
    fail<ConfigError>(
        "resume: this is not the run of {}: {}; put the old value back, or choose another output.dir", where,
        first_difference(old_text, new_text));
  }
}

void check_same_run(const RunConfig& config, const FoundCheckpoint& state, std::int64_t ranks) {
  if (!state.record.round) {
    fail<ConfigError>("resume: {} is a checkpoint of a synchronous run; choose another output.dir",
                      state.folder);
  }
  if (state.record.experiment.world_size != ranks) {
    fail<ConfigError>("resume: {} was made by {} ranks, this run has {}; start it with the same number",
                      state.folder, state.record.experiment.world_size, ranks);
  }
  check_same_configuration(config, state.record.config, state.folder);
  if (*state.record.round > config.federated.rounds) {
    fail<ConfigError>("resume: federated.rounds is {}, but {} has finished {}; give at least as many",
                      config.federated.rounds, state.folder, *state.record.round);
  }
  const std::string results_path = (fs::path(config.output.dir) / kResultsFileName).string();
  const ResultsContent results = read_results(results_path);
  if (static_cast<std::int64_t>(results.history.size()) <= *state.record.round ||
      static_cast<std::int64_t>(results.steps.size()) < state.record.step_records) {
    fail<IoError>(
        "resume: {} has {} rounds and {} steps, fewer than {} says; it is an older file: put back the one "
        "that "
        "belongs to the checkpoint, or start again in another output.dir",
        results_path, static_cast<std::int64_t>(results.history.size()) - 1, results.steps.size(),
        state.folder);
  }
}

/// Everything one process needs for the loop.
struct Loop {
  const RunInputs& inputs;
  Communicator& world;
  RunRecorder* recorder;
  FederatedRun& run;
  BatchLoader& train;
  std::unique_ptr<Progress> console = nullptr;

  void evaluate(std::int64_t round) {
    if (recorder != nullptr) {
      recorder->flush();
    }
    const Evaluation result = run.evaluate();
    if (recorder != nullptr) {
      recorder->on_evaluation({round, result.loss, result.perplexity});
    }
  }

  /// Ranks other than 0 that were asked to speak show their own steps.
  void begin_console(const std::string& label, std::int64_t steps) {
    if (recorder == nullptr && log::is_speaking()) {
      console = std::make_unique<Progress>(ProgressOptions::for_console());
      console->begin(label, steps);
    }
  }

  void train_round(std::int64_t round) {
    const std::int64_t epochs = inputs.config.federated.local_epochs;
    const std::string label = fmt::format("round {}/{}", round, inputs.config.federated.rounds);
    const std::int64_t steps = epochs * train.max_batches_per_epoch();
    if (recorder != nullptr) {
      recorder->begin_phase(label, steps);
    }
    begin_console(label, steps);
    run.train_locally(round, [&](const FederatedRun::StepInfo& info) {
      const StepRecord record{recorder != nullptr ? recorder->step_records() + 1 : info.step,
                              info.result.loss,
                              info.lr,
                              info.result.grad_norm,
                              info.result.tokens,
                              info.result.seconds};
      if (recorder != nullptr) {
        recorder->on_step(record);
      } else if (console) {
        console->on_step(record);
      }
    });
    if (recorder != nullptr) {
      recorder->end_phase();
      recorder->flush();  // the collection may wait long for a slower rank
    }
    if (console) {
      console->end();
      console.reset();
    }
    run.collect(round);
  }

  /// The state that outlives a round goes first: the checkpoint's folder is what makes the round complete.
  void save(std::int64_t round) {
    const RunConfig& config = inputs.config;
    const std::string folder = RunRecorder::checkpoint_folder(config, world.size(), round);
    save_round_state(round_state_folder(folder), run, world);
    if (recorder != nullptr) {
      const Swapping swapping = config.federated.enable_swapping ? Swapping::kOn : Swapping::kOff;
      recorder->flush();
      save_model(folder, inputs.model.config, *run.full_parameters(), inputs.tokenizer_file,
                 recorder->record(round, slots_of_round(round, world.size(), swapping)));
      if (!config.federated.save_every_round && round > 1) {
        const std::string previous = RunRecorder::checkpoint_folder(config, world.size(), round - 1);
        fs::remove(fs::path(previous) / kRunRecordName);  // from here on it is no checkpoint
        fs::remove_all(previous);
        fs::remove_all(round_state_folder(previous));
      }
    }
    world.barrier();
  }
};

}  // namespace

std::optional<FoundCheckpoint> find_resume_state(const RunConfig& config, std::int64_t ranks) {
  std::optional<FoundCheckpoint> newest = latest_checkpoint(config.output.dir);
  const std::string results = (fs::path(config.output.dir) / kResultsFileName).string();
  if (newest) {
    check_same_run(config, *newest, ranks);
  } else if (fs::exists(results)) {
    // No round is finished: the run starts afresh over its own remains, never over another run's results.
    const ResultsContent content = read_results(results);
    check_same_configuration(config, content.attributes.config, results);
    if (content.history.size() > 1) {
      fail<IoError>(
          "resume: {} holds {} finished rounds, but their checkpoints are gone from {}; put the last one "
          "back, or "
          "start again with --overwrite",
          results, content.history.size() - 1, (fs::path(config.output.dir) / kCheckpointsFolder).string());
    }
  }
  return newest;
}

void run_federated(const RunInputs& inputs, Communicator& world, Backend& backend, RunRecorder* recorder,
                   const std::optional<FoundCheckpoint>& resume) {
  const RunConfig& config = inputs.config;
  const std::int64_t samples = inputs.train->size();
  const SamplePart part = part_of(world.rank(), world.size(), samples);
  if (const std::int64_t unused = unused_samples(world.size(), samples); unused > 0) {
    log::info("data: {} samples in {} parts of {}; the last {} are not used", samples, world.size(),
              part.samples(), unused);
  }
  BatchLoader train(*inputs.train, inputs.encoder.get(), part, inputs.train_options());
  std::unique_ptr<BatchLoader> eval;
  if (world.rank() == SliceExchange::kAggregator) {
    eval = std::make_unique<BatchLoader>(*inputs.eval, inputs.encoder.get(),
                                         SamplePart{0, inputs.eval->size(), 0}, inputs.eval_options());
  }
  const std::int64_t finished = resume ? *resume->record.round : 0;
  FederatedRun run({.config = config,
                    .model = inputs.model.config,
                    .world = world,
                    .backend = backend,
                    .train = train,
                    .eval = std::move(eval),
                    .first_round = finished + 1});
  if (resume) {
    ModelSection section;
    section.checkpoint = resume->folder;
    section.tie_embeddings = inputs.model.config.tie_embeddings ? Tie::kTied : Tie::kUntied;
    const ModelSource source = open_model(section, nullptr);
    run.load(
        [&](const Context& ctx, ParameterSet& parameters) { load_parameters(source, 0, ctx, parameters); });
    load_round_state(round_state_folder(resume->folder), run);
  } else {
    run.load([&](const Context& ctx, ParameterSet& parameters) {
      load_parameters(inputs.model, static_cast<std::uint64_t>(config.seed), ctx, parameters);
    });
  }

  Loop loop{inputs, world, recorder, run, train};
  if (!resume) {
    loop.evaluate(0);
  }
  for (std::int64_t round = finished + 1; round <= config.federated.rounds; ++round) {
    loop.train_round(round);
    loop.evaluate(round);
    loop.save(round);
  }
  if (recorder != nullptr) {
    recorder->finish();
  }
}

}  // namespace caravan

// Small federated runs inside a test job of several ranks: rank 0 makes the files, all ranks run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caravan/comm/mpi_session.h"
#include "caravan/core/counter_rng.h"
#include "caravan/federated/federated_training.h"
#include "caravan/io/run_folder.h"
#include "caravan/io/yaml_config.h"
#include "kernels/cpu/cpu_backend.h"
#include "support/shared_folder.h"
#include "support/temporary_folder.h"

namespace caravan::test {

/// Rows of random ids: enough of a pattern that training changes the loss.
inline void write_random_rows(const std::string& path, std::int64_t rows, std::uint64_t seed,
                              std::int64_t vocab) {
  std::string text;
  const CounterRng rng(seed, 1);
  std::uint64_t index = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    text += "{\"ids\": [";
    const std::uint64_t length = 5 + rng.below(index++, 20);
    for (std::uint64_t i = 0; i < length; ++i) {
      text +=
          fmt::format("{}{}", i > 0 ? ", " : "", rng.below(index++, static_cast<std::uint64_t>(vocab) / 4));
    }
    text += "]}\n";
  }
  write_text(path, text);
}

struct RunResult {
  std::vector<HistoryRecord> history;  // on rank 0
  std::vector<StepRecord> steps;       // on rank 0
};

/// Runs `config` as caravan train does. `resume` goes on with what output.dir holds. Collective.
inline RunResult run_federated_config(const RunConfig& config, Communicator& world,
                                      const std::unique_ptr<Backend>& backend = make_cpu_backend()) {
  const RunInputs inputs = open_inputs(config, DataUse::kOpen);
  const std::optional<FoundCheckpoint> resume =
      resume_choice(config) == Resume::kLatest ? find_resume_state(config, world.size()) : std::nullopt;
  world.barrier();
  std::unique_ptr<RunRecorder> recorder;
  const auto open_recorder = [&] {
    if (world.rank() == 0) {
      prepare_run_folder(config.output.dir, resume ? ExistingRun::kResume : ExistingRun::kRefuse);
      RunRecorder::ResumePoint point;
      if (resume) {
        point = {*resume->record.round + 1, resume->record.step_records};
      }
      recorder =
          std::make_unique<RunRecorder>(inputs, federated_identity(inputs, world.size()),
                                        RunEnvironment{"test", "test", "test"}, resume ? &point : nullptr);
    }
    return recorder.get();
  };
  run_federated(inputs, world, *backend, open_recorder, resume);
  RunResult result;
  if (recorder) {
    const ResultsContent content = read_results(recorder->results_path());
    result = {content.history, content.steps};
  }
  world.barrier();
  return result;
}

/// This rank's part of a federated run with the weights of seed 1, ready for its first round. Collective.
struct ReadyRun {
  ReadyRun(const RunConfig& wanted, Communicator& world, std::unique_ptr<Backend> on = make_cpu_backend())
      : config(wanted),
        inputs(open_inputs(wanted, DataUse::kOpen)),
        backend(std::move(on)),
        train(*inputs.train, nullptr, part_of(world.rank(), world.size(), inputs.train->size()),
              inputs.train_options(wanted.federated.batch_size)),
        run({config, inputs.model.config, world, *backend, train,
             std::make_unique<BatchLoader>(*inputs.eval, nullptr, SamplePart{0, inputs.eval->size(), 0},
                                           inputs.eval_options(wanted.federated.batch_size))}) {
    run.load([&](const Context& ctx, ParameterSet& set) {
      load_parameters(inputs.model, 1, ctx, whole_shards(set));
    });
  }
  void train_round(std::int64_t round) {
    run.train_round(round, [](const FederatedRun::StepInfo&) {});
  }

  RunConfig config;  // the run reads it: a test may change it between rounds
  RunInputs inputs;
  std::unique_ptr<Backend> backend;
  BatchLoader train;
  FederatedRun run;
};

}  // namespace caravan::test

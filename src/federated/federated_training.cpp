#include "caravan/federated/federated_training.h"

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/federated/round_state.h"
#include "caravan/io/run_folder.h"
#include "caravan/train/save_model.h"

namespace caravan {
namespace {

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
    bool has_learned = false;
    run.train_locally(round, [&](const FederatedRun::StepInfo& info) {
      has_learned = true;
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
    if (!has_learned) {
      fail<IoError>(
          "data.train has no target token in the part of rank {}: its samples are shorter than two tokens",
          world.rank());
    }
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
        remove_run_checkpoint(RunRecorder::checkpoint_folder(config, world.size(), round - 1));
      }
    }
    world.barrier();
  }
};

}  // namespace

RunIdentity federated_identity(const RunInputs& inputs, std::int64_t ranks) {
  const RunConfig& config = inputs.config;
  return {.mode = "federated",
          .counts = RunIdentity::Counts::kRounds,
          .experiment = {.world_size = ranks,
                         .lr = config.optimizer.lr,
                         .enable_swapping = config.federated.enable_swapping,
                         .rounds = config.federated.rounds,
                         .local_epochs = config.federated.local_epochs,
                         .dataset = inputs.dataset_name(),
                         .seed = config.seed}};
}

void run_federated(const RunInputs& inputs, Communicator& world, Backend& backend,
                   const OpenRecorder& open_recorder, const std::optional<FoundCheckpoint>& resume) {
  const RunConfig& config = inputs.config;
  const std::int64_t samples = inputs.train->size();
  const SamplePart part = part_of(world.rank(), world.size(), samples);
  if (const std::int64_t unused = unused_samples(world.size(), samples); unused > 0) {
    log::info("data: {} samples in {} parts of {}; the last {} are not used", samples, world.size(),
              part.samples(), unused);
  }
  BatchLoader train(*inputs.train, inputs.encoder.get(), part,
                    inputs.train_options(config.federated.batch_size));
  std::unique_ptr<BatchLoader> eval;
  if (world.rank() == SliceExchange::kAggregator) {
    eval = std::make_unique<BatchLoader>(*inputs.eval, inputs.encoder.get(),
                                         SamplePart{0, inputs.eval->size(), 0},
                                         inputs.eval_options(config.federated.batch_size));
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
    const ModelSource source = open_resume_model(*resume, config, inputs.model.config);
    run.load([&](const Context& ctx, ParameterSet& parameters) {
      load_parameters(source, 0, ctx, whole_shards(parameters));
    });
    load_round_state(round_state_folder(resume->folder), run);
  } else {
    run.load([&](const Context& ctx, ParameterSet& parameters) {
      load_parameters(inputs.model, static_cast<std::uint64_t>(config.seed), ctx, whole_shards(parameters));
    });
  }

  std::optional<Evaluation> before;
  if (!resume) {
    before = run.evaluate();
  }
  RunRecorder* const recorder = open_recorder();
  if (recorder != nullptr && before) {
    recorder->on_evaluation({0, before->loss, before->perplexity});
  }
  Loop loop{inputs, world, recorder, run, train};
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

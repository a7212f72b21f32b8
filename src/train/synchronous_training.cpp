#include "caravan/train/synchronous_training.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/io/run_folder.h"
#include "caravan/optim/schedule.h"
#include "caravan/train/checkpointing.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/gather_model.h"
#include "caravan/train/save_model.h"
#include "caravan/train/training_checkpoint.h"

namespace caravan {
namespace {

constexpr std::int64_t kDefaultSteps = 100;

/// A batch of samples shorter than two tokens teaches nothing and is no step. Throws IoError when an epoch's
/// worth of batches is like that.
void next_batch_with_targets(BatchLoader& train, Batch& batch) {
  for (std::int64_t i = 0; i <= train.max_batches_per_epoch(); ++i) {
    train.next_step(batch);
    if (batch.valid_tokens > 0) {
      return;
    }
  }
  throw IoError("data.train has no target token: every sample is shorter than two tokens");
}

/// Updates in `epochs` passes. Only reading tells how many rows packing makes, and which batches have
/// targets. Without packing one pass tells of all when there are too few samples without a target to make up
/// the smallest batch, whatever the order.
std::int64_t count_steps(BatchLoader& train, std::int64_t epochs) {
  std::int64_t steps = 0;
  Batch batch;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    train.start_epoch(epoch);
    std::int64_t fewest_rows = std::numeric_limits<std::int64_t>::max();
    while (train.next(batch)) {
      steps += batch.valid_tokens > 0 ? 1 : 0;
      fewest_rows = std::min(fewest_rows, batch.batch);
    }
    if (epoch == 0 && train.batches_per_epoch() && train.counts().without_target < fewest_rows) {
      steps *= epochs;
      break;
    }
  }
  if (steps == 0) {
    throw IoError("data.train has no target token: every sample is shorter than two tokens");
  }
  return steps;
}

std::unique_ptr<BatchLoader> open_loader(const Dataset& dataset, const RunInputs& inputs,
                                         const LoaderOptions& options) {
  return std::make_unique<BatchLoader>(dataset, inputs.encoder.get(), SamplePart{0, dataset.size(), 0},
                                       options);
}

/// Rank 0 writes what all ranks bring together, one tensor at a time. Collective.
void save_whole_model(SynchronousRun& run, const RunInputs& inputs, const RunRecorder* recorder,
                      const std::string& folder, std::int64_t step) {
  ModelGather gather(run.world(), parameter_table(inputs.model.config, ShardTable::kSynchronous),
                     run.store().shards());
  if (run.world().rank() != ModelGather::kRoot) {
    gather.contribute();
    return;
  }
  save_model(folder, inputs.model.config, gather.sources(), inputs.tokenizer_file,
             recorder->record(step, {}));
  remove_renamed_checkpoints(folder);
  log::info("checkpoint: {}", folder);
}

/// What one process needs for the loop.
struct Loop {
  const RunInputs& inputs;
  SynchronousRun& run;
  BatchLoader& train;
  BatchLoader* eval = nullptr;      // null: no held-out data
  RunRecorder* recorder = nullptr;  // null on ranks other than 0
  Checkpointing& checkpoints;
  std::int64_t steps = 0;
  TrainingPosition at;
  std::int64_t evaluated_at = 0;
  /// Why the last checkpoint could not be written, on every rank alike. What was trained is not lost for it:
  /// the model, a third of its size, may still find room.
  std::optional<std::string> last_problem = std::nullopt;

  /// The rows of results.h5 that a checkpoint speaks of are on the disk before it is complete.
  void flush_results() {
    if (recorder != nullptr) {
      recorder->flush();
    }
  }

  void evaluate() {
    flush_results();
    if (eval != nullptr) {
      const Evaluation result = run.evaluate(*eval);
      if (recorder != nullptr) {
        recorder->on_evaluation({at.step, result.loss, result.perplexity});
      }
    }
    evaluated_at = at.step;
  }

  void save() {
    checkpoints.save(
        training_state(inputs, run, at, recorder),
        checkpoint_sources(run.store(), run.trainer().optimizer(), inputs.model.config, run.layout().at));
  }

  void take_step(Batch& batch) {
    const std::int64_t samples_before = train.counts().samples;
    next_batch_with_targets(train, batch);
    const double lr = scheduled_lr(inputs.config.optimizer, at.step + 1, steps);
    const StepResult result = run.step(batch, lr);
    at = {at.step + 1, train.position(), at.samples + train.counts().samples - samples_before};
    if (result.is_skipped) {
      log::warning(
          "step {}: the gradients overflowed with loss scale {}: the update is skipped, the scale is {} now",
          at.step, result.loss_scale, run.trainer().optimizer().update_state().loss_scale);
    }
    if (recorder != nullptr) {
      recorder->on_step({at.step, result.loss, lr, result.grad_norm, result.tokens, result.seconds});
    }
  }

  /// A step's evaluation belongs to the checkpoint after it, except for the one that is made only because
  /// the run ends here: a run that goes on to more steps has none there.
  void train_to_the_end() {
    const RunConfig& config = inputs.config;
    const auto is_due = [&](std::int64_t every) { return every > 0 && at.step % every == 0; };
    Batch batch;
    while (at.step < steps) {
      take_step(batch);
      if (at.step < steps) {
        checkpoints.poll();
      }
      if (is_due(config.training.eval_every)) {
        evaluate();
      }
      if (is_due(config.checkpoint.every) || at.step == steps) {
        flush_results();
        at.step < steps ? save() : save_last();
      }
    }
  }

  void save_last() {
    try {
      save();
      checkpoints.finish();
    } catch (const IoError& problem) {  // of writing checkpoints: on every rank
      last_problem = problem.what();
      log::warning("checkpoint: {}; the model is still to be written", *last_problem);
    }
  }
};

}  // namespace

RunIdentity synchronous_identity(const RunInputs& inputs, std::int64_t ranks) {
  return {.mode = "synchronous",
          .counts = RunIdentity::Counts::kSteps,
          .experiment = {.world_size = ranks,
                         .lr = inputs.config.optimizer.lr,
                         .enable_swapping = false,
                         .rounds = 0,
                         .local_epochs = 0,
                         .dataset = inputs.dataset_name(),
                         .seed = inputs.config.seed}};
}

std::int64_t most_synchronous_steps(const RunConfig& config, std::int64_t ranks, std::int64_t samples) {
  if (!config.training.epochs) {
    return config.training.steps.value_or(kDefaultSteps);
  }
  const std::int64_t rows = batch_geometry(config, resolve_mesh(config.parallel, ranks)).batch_size;
  return *config.training.epochs * ((samples + rows - 1) / rows);
}

void run_synchronous(const RunInputs& inputs, Communicator& world, const ComputeBackends& on,
                     const OpenRecorder& open_recorder, ShardedCheckpointReader* resume) {
  const RunConfig& config = inputs.config;
  SynchronousRun run({config, inputs.model.config, world, on.device, inputs.pad_id, &on.host});
  run.check_groups();
  const TrainingPosition begin = resume != nullptr ? training_position(*resume) : TrainingPosition{};
  if (resume != nullptr) {
    restore(run, *resume);
  } else {
    run.load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
      load_parameters(inputs.model, static_cast<std::uint64_t>(config.seed), ctx, shards);
    });
  }
  const std::int64_t batch_size = run.layout().geometry.batch_size;
  const auto train = open_loader(*inputs.train, inputs, inputs.train_options(batch_size));
  std::unique_ptr<BatchLoader> eval;
  std::optional<Evaluation> before;
  if (inputs.eval) {
    eval = open_loader(*inputs.eval, inputs, inputs.eval_options(batch_size));
  }
  if (eval && resume == nullptr) {
    before = run.evaluate(*eval);
  }
  const std::int64_t steps = config.training.epochs ? count_steps(*train, *config.training.epochs)
                                                    : config.training.steps.value_or(kDefaultSteps);
  if (begin.step > steps) {
    fail<ConfigError>(
        "resume: training.epochs {} are {} steps, but {} has finished {}; give at least as many",
        config.training.epochs.value_or(0), steps, resume->folder(), begin.step);
  }
  RunRecorder* const recorder = open_recorder();  // null on ranks other than 0
  if (recorder != nullptr && before) {
    recorder->on_evaluation({0, before->loss, before->perplexity});
  }
  if (recorder != nullptr) {
    recorder->begin_phase("training", steps - begin.step);
  }
  train->seek(begin.data.epoch, begin.data.batch);
  Checkpointing checkpoints((std::filesystem::path(config.output.dir) / kCheckpointsFolder).string(),
                            config.checkpoint, world);
  const std::int64_t evaluated_at =
      recorder == nullptr || recorder->history().empty() ? 0 : recorder->history().back().round;
  Loop loop{inputs,     run,      *train,
            eval.get(), recorder, checkpoints,
            steps,      begin,    world.all_reduce_value(evaluated_at, ReduceOp::kMax)};
  loop.train_to_the_end();
  if (recorder != nullptr) {
    recorder->end_phase();
  }
  if (loop.evaluated_at != steps) {
    loop.evaluate();
  }
  save_whole_model(run, inputs, recorder, RunRecorder::checkpoint_folder(config, world.size(), steps), steps);
  if (loop.last_problem) {
    fail<IoError>("{}; the model of the end is written, the state of training is not", *loop.last_problem);
  }
  if (recorder != nullptr) {
    recorder->finish();
  }
}

}  // namespace caravan

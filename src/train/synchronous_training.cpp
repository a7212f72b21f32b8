#include "caravan/train/synchronous_training.h"

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/optim/schedule.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/gather_model.h"
#include "caravan/train/save_model.h"

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
/// targets.
std::int64_t count_steps(BatchLoader& train, std::int64_t epochs) {
  std::int64_t steps = 0;
  Batch batch;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    train.start_epoch(epoch);
    while (train.next(batch)) {
      steps += batch.valid_tokens > 0 ? 1 : 0;
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
  log::info("checkpoint: {}", folder);
}

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

void run_synchronous(const RunInputs& inputs, Communicator& world, Backend& backend,
                     const OpenRecorder& open_recorder) {
  const RunConfig& config = inputs.config;
  SynchronousRun run({config, inputs.model.config, world, backend, inputs.pad_id});
  run.load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
    load_parameters(inputs.model, static_cast<std::uint64_t>(config.seed), ctx, shards);
  });
  const std::int64_t batch_size = run.layout().geometry.batch_size;
  const auto train = open_loader(*inputs.train, inputs, inputs.train_options(batch_size));
  std::unique_ptr<BatchLoader> eval;
  std::optional<Evaluation> before;
  if (inputs.eval) {
    eval = open_loader(*inputs.eval, inputs, inputs.eval_options(batch_size));
    before = run.evaluate(*eval);
  }
  const std::int64_t steps = config.training.epochs ? count_steps(*train, *config.training.epochs)
                                                    : config.training.steps.value_or(kDefaultSteps);
  RunRecorder* const recorder = open_recorder();  // null on ranks other than 0
  if (recorder != nullptr && before) {
    recorder->on_evaluation({0, before->loss, before->perplexity});
  }
  const auto evaluate_at = [&](std::int64_t step) {
    if (recorder != nullptr) {
      recorder->flush();
    }
    if (eval) {
      const Evaluation result = run.evaluate(*eval);
      if (recorder != nullptr) {
        recorder->on_evaluation({step, result.loss, result.perplexity});
      }
    }
  };
  if (recorder != nullptr) {
    recorder->begin_phase("training", steps);
  }
  train->seek_step(0);
  Batch batch;
  std::int64_t evaluated_at = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    next_batch_with_targets(*train, batch);
    const double lr = scheduled_lr(config.optimizer, step, steps);
    const StepResult result = run.step(batch, lr);
    if (recorder != nullptr) {
      recorder->on_step({step, result.loss, lr, result.grad_norm, result.tokens, result.seconds});
    }
    if (config.training.eval_every > 0 && step % config.training.eval_every == 0) {
      evaluate_at(step);
      evaluated_at = step;
    }
  }
  if (recorder != nullptr) {
    recorder->end_phase();
  }
  if (evaluated_at != steps) {
    evaluate_at(steps);
  }
  save_whole_model(run, inputs, recorder, RunRecorder::checkpoint_folder(config, world.size(), steps), steps);
  if (recorder != nullptr) {
    recorder->finish();
  }
}

}  // namespace caravan

#include "caravan/train/synchronous_training.h"

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/optim/schedule.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/save_model.h"

namespace caravan {
namespace {

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

}  // namespace

Llama::Layout SynchronousRun::layout(const RunConfig& config) {
  return {.table = ShardTable::kWhole,
          .at = {},
          .dtype = config.dtype,
          .gradients = Gradients::kAllocated,
          .positions = config.data.max_seq_len};
}

Executor::Limits SynchronousRun::limits(const RunConfig& config) {
  return {.batch = config.training.batch_size,
          .seq_len = config.data.max_seq_len - 1,
          .pass = Pass::kForwardBackward,
          .policy = save_policy(config.training.recompute)};
}

RunIdentity synchronous_identity(const RunInputs& inputs) {
  return {.mode = "synchronous",
          .counts = RunIdentity::Counts::kSteps,
          .experiment = {.world_size = 1,
                         .lr = inputs.config.optimizer.lr,
                         .enable_swapping = false,
                         .rounds = 0,
                         .local_epochs = 0,
                         .dataset = inputs.dataset_name(),
                         .seed = inputs.config.seed}};
}

void run_synchronous(const RunInputs& inputs, Backend& backend, const OpenRecorder& open_recorder) {
  const RunConfig& config = inputs.config;
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  Llama model(inputs.model.config, SynchronousRun::layout(config), backend, {boundary, attention, vocab});
  LocalTrainer trainer(model, backend,
                       {.limits = SynchronousRun::limits(config),
                        .optimizer = adamw_options(config.optimizer),
                        .clip_norm = config.training.clip_norm});
  load_parameters(inputs.model, static_cast<std::uint64_t>(config.seed), trainer.executor().context(),
                  model.parameters());
  BatchLoader train(*inputs.train, inputs.encoder.get(), {0, inputs.train->size(), 0},
                    inputs.train_options(config.training.batch_size));
  std::unique_ptr<BatchLoader> eval;
  if (inputs.eval) {
    eval = std::make_unique<BatchLoader>(*inputs.eval, inputs.encoder.get(),
                                         SamplePart{0, inputs.eval->size(), 0},
                                         inputs.eval_options(config.training.batch_size));
  }
  std::optional<Evaluation> before;
  if (eval) {
    before = evaluate(trainer.executor(), *eval);
  }
  RunRecorder& recorder = *open_recorder();
  if (before) {
    recorder.on_evaluation({0, before->loss, before->perplexity});
  }
  const auto evaluate_at = [&](std::int64_t step) {
    recorder.flush();
    if (eval) {
      const Evaluation result = evaluate(trainer.executor(), *eval);
      recorder.on_evaluation({step, result.loss, result.perplexity});
    }
  };
  const std::int64_t steps = config.training.steps;
  recorder.begin_phase("training", steps);
  train.seek_step(0);
  Batch batch;
  std::int64_t evaluated_at = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    next_batch_with_targets(train, batch);
    const double lr = scheduled_lr(config.optimizer, step, steps);
    const StepResult result = trainer.step(batch, lr);
    recorder.on_step({step, result.loss, lr, result.grad_norm, result.tokens, result.seconds});
    if (config.training.eval_every > 0 && step % config.training.eval_every == 0) {
      evaluate_at(step);
      evaluated_at = step;
    }
  }
  recorder.end_phase();
  if (evaluated_at != steps) {
    evaluate_at(steps);
  }
  const std::string folder = RunRecorder::checkpoint_folder(config, 1, steps);
  save_model(folder, inputs.model.config, model.parameters(), inputs.tokenizer_file,
             recorder.record(steps, {}));
  log::info("checkpoint: {}", folder);
  recorder.finish();
}

}  // namespace caravan

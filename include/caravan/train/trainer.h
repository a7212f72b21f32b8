// One model trained on this rank alone: batch in, updated parameters out. Both modes are built on it.
#pragma once

#include <optional>
#include <string>

#include "caravan/config/run_config.h"
#include "caravan/optim/adamw.h"
#include "caravan/train/executor.h"

namespace caravan {

/// The optimizer section as options of AdamW.
AdamwOptions adamw_options(const OptimizerSection& section);
/// What training.recompute keeps from forward to backward.
SavePolicy save_policy(Recompute recompute);

struct StepResult {
  double loss = 0.0;        // mean over the valid target tokens
  double grad_norm = 0.0;   // before clipping
  std::int64_t tokens = 0;  // valid target tokens
  double seconds = 0.0;
  bool updated = false;  // false: the batch had no valid target, nothing changed
};

class LocalTrainer {
 public:
  struct Options {
    Executor::Limits limits;
    AdamwOptions optimizer;
    std::optional<double> clip_norm;
  };
  /// `model` has gradients; it and `backend` outlive the trainer.
  LocalTrainer(Llama& model, Backend& backend, const Options& options);

  /// Forward, backward, clip, update. Throws NumericError, naming the step and the first tensor that is not
  /// finite, when the loss or the gradient norm is not; the parameters are those of before the step then.
  StepResult step(const Batch& batch, double lr);
  /// Adds the gradients of `batch` (mean over its valid tokens) to zero; no update. Returns the mean loss.
  double gradients(const Batch& batch);

  Executor& executor() { return executor_; }
  Adamw& optimizer() { return optimizer_; }
  /// Steps since construction, whatever the optimizer's own count (a fresh optimizer starts again at zero).
  std::int64_t steps() const { return steps_; }

 private:
  [[noreturn]] void fail_not_finite(const Batch& batch, const char* what, double value);

  Options options_;
  Executor executor_;
  Adamw optimizer_;
  std::int64_t steps_ = 0;
};

}  // namespace caravan

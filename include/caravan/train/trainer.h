// One model trained by steps: batch in, updated parameters out. Both modes are built on it: a federated rank
// trains its slice alone, the ranks of a mesh train one model together.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "caravan/comm/self_communicator.h"
#include "caravan/config/run_config.h"
#include "caravan/optim/adamw.h"
#include "caravan/parallel/training_store.h"
#include "caravan/train/executor.h"

namespace caravan {

/// What the configuration says of AdamW and clipping.
AdamwOptions adamw_options(const RunConfig& config);
/// What training.recompute keeps from forward to backward.
SavePolicy save_policy(Recompute recompute);

struct StepResult {
  double loss = 0.0;        // mean over the valid target tokens of the whole step
  double grad_norm = 0.0;   // of the whole model (of a federated rank: of its slice), before clipping
  std::int64_t tokens = 0;  // valid target tokens of the whole step
  double seconds = 0.0;
  bool updated = false;     // false: the step had no valid target, or was skipped; nothing changed
  bool is_skipped = false;  // the gradients overflowed with their scale, which is lower from now on
  double loss_scale = 1.0;  // of this step's gradients
};

class Trainer {
 public:
  struct Options {
    Executor::Limits limits;  // of a trainer alone
    AdamwOptions optimizer;
  };
  /// The ranks that train one model together; world and store outlive the trainer.
  struct Together {
    Communicator& world;
    TrainingStore& store;
    std::unique_ptr<StepExecutor> executor;  // of the model, over the store
    // Where the executor records: what is exchanged before and after its passes is in these.
    std::vector<Communicator*> recorded_groups = {};
    Backend* updater = nullptr;  // where the store's shards are; null: where the model computes
    bool counts_loss = true;     // on one rank of those that compute the same tokens' losses
  };
  /// Trains on this rank alone. `model` has gradients; it and `backend` outlive the trainer.
  Trainer(Llama& model, Backend& backend, const Options& options);
  Trainer(Llama& model, Backend& backend, const Options& options, Together&& together);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Forward and backward of this rank's micro-batches, clip, update. `valid_tokens` are those of the whole
  /// step on all ranks, the only divisor. Whether the update is made is decided where the shards are; the
  /// host waits once, for the results. A step whose gradients overflow with a loss scale above the least is
  /// skipped: it counts, and changes nothing but the scale. Else throws NumericError, naming the step and the
  /// first tensor that is not finite, when the loss or the gradient norm is not; the parameters are those of
  /// before the step then. Collective: every rank gets the same result.
  StepResult step(std::span<const Batch> micro_batches, std::int64_t valid_tokens, double lr);
  /// One batch on this rank alone.
  StepResult step(const Batch& batch, double lr) { return step({&batch, 1}, batch.valid_tokens, lr); }
  /// The gradients alone, no update. Returns the mean loss.
  double gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens);
  double gradients(const Batch& batch) { return gradients({&batch, 1}, batch.valid_tokens); }

  StepExecutor& steps_executor() { return *executor_; }
  /// For what reads and writes the store's shards.
  Context update_context();
  /// The executor of a model that is whole on this rank. Throws InternalError where it is cut into stages.
  Executor& executor();
  TrainingStore& store() { return store_; }
  Adamw& optimizer() { return optimizer_; }
  /// Steps since construction, whatever the optimizer's own count (a fresh optimizer starts again at zero).
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  struct Alone;
  void add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens);
  void sum_over_ranks();
  void recorded(RecordedWork& recording, const std::function<void(Context& ctx)>& work);
  [[noreturn]] void fail_not_finite(std::span<const Batch> micro_batches, const char* what, double value);
  std::string find_culprit(std::span<const Batch> micro_batches);

  Options options_;
  std::unique_ptr<Alone> alone_;
  Communicator& world_;
  TrainingStore& store_;
  bool counts_loss_;
  std::unique_ptr<StepExecutor> executor_;
  Backend& updater_;
  Arena no_scratch_;
  Adamw optimizer_;
  Buffer loss_memory_;  // Σ token losses where the model computes; empty where the shards are there, too
  RecordedWork begin_, update_;
  std::int64_t steps_ = 0;
};

}  // namespace caravan

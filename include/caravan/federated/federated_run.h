// Federated tensor-parallel training: every rank trains its slice of the model alone on its own part of the
// data, and a round ends with the aggregator (rank 0) putting the model together and evaluating it
// (docs/tour.md).
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "caravan/comm/communicator.h"
#include "caravan/config/run_config.h"
#include "caravan/data/batch_loader.h"
#include "caravan/federated/local_schedule.h"
#include "caravan/federated/slice_exchange.h"
#include "caravan/federated/slots.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/step_batches.h"
#include "caravan/train/trainer.h"

namespace caravan {

/// Fills the local regions of a parameter set: from a checkpoint, or from the seed.
using LoadParameters = std::function<void(const Context& ctx, ParameterSet& parameters)>;

class FederatedRun {
 public:
  struct Setup {
    const RunConfig& config;
    const ModelConfig& model;
    Communicator& world;
    Backend& backend;
    BatchLoader& train;                 // this rank's part
    std::unique_ptr<BatchLoader> eval;  // on the aggregator; null elsewhere
    std::int64_t first_round = 1;       // > 1: resumed; `load` gives the model after round first_round − 1
  };
  /// Allocates the slice, and on the aggregator the full model (one and the same when there is one rank and
  /// the gathered values are taken as they are). Throws ConfigError when the model cannot be cut. Collective.
  explicit FederatedRun(Setup setup);

  /// Fills slice and full model for the round before first_round. Collective.
  void load(const LoadParameters& load);

  struct StepInfo {
    std::int64_t round = 0;
    std::int64_t epoch = 0;  // counted over all rounds
    std::int64_t step = 0;   // of this rank, counted over all rounds of this process
    double lr = 0.0;
    StepResult result;
  };
  using OnStep = std::function<void(const StepInfo&)>;
  /// First part of a round: move slots (collective when they move), then train alone. `on_step` is called on
  /// every rank.
  void train_locally(std::int64_t round, const OnStep& on_step);
  /// Second part: the slices come together in the full model. Collective.
  void collect(std::int64_t round);
  /// Both.
  void train_round(std::int64_t round, const OnStep& on_step) {
    train_locally(round, on_step);
    collect(round);
  }

  /// Evaluates the assembled model on the aggregator; every rank gets the result. Collective.
  Evaluation evaluate();

  /// The assembled model; null on ranks other than the aggregator.
  ParameterSet* full_parameters();
  /// Whether values are roundings of float32 masters, which then are what a round's state holds.
  bool has_masters() const { return accumulation_dtype(setup_.config.dtype) != setup_.config.dtype; }
  /// The exact numbers, in the order of the parameters: masters where there are some, else the values. Of the
  /// assembled model on the aggregator, none elsewhere.
  const std::vector<TensorView>& exact_slice() const { return exact_slice_; }
  const std::vector<TensorView>& exact_full() const { return exact_full_; }
  Trainer& trainer() { return *trainer_; }
  Aggregation& aggregation() { return *aggregation_; }
  Llama& slice() { return *slice_; }
  const RunConfig& config() const { return setup_.config; }
  std::int64_t slot() const { return slot_; }

  /// Limits of the training and of the evaluation executor for a configuration.
  static Executor::Limits train_limits(const RunConfig& config);
  static Executor::Limits eval_limits(const RunConfig& config);
  static Llama::Layout slice_layout(const RunConfig& config, std::int64_t slot, std::int64_t ranks);
  static Llama::Layout full_layout(const RunConfig& config);

 private:
  void find_exact_numbers();
  void round_slice();
  void round_full();
  void move_slots(std::int64_t round);
  void pass_on_optimizer_state();

  Setup setup_;
  Swapping swapping_;
  std::int64_t slot_;
  LocalBoundary boundary_;       // of the slice: may rescale
  LocalBoundary full_boundary_;  // of the assembled model
  LocalAttention attention_;
  LocalVocab vocab_;
  std::unique_ptr<Llama> slice_;
  std::unique_ptr<Llama> full_;  // aggregator only; null when the slice is the full model
  std::unique_ptr<Trainer> trainer_;
  LocalSchedule schedule_;
  std::unique_ptr<Executor> evaluator_;  // aggregator only
  Buffer full_masters_;                  // aggregator only; empty when the slice's are the full model's
  std::vector<TensorView> exact_slice_;
  std::vector<TensorView> exact_full_;
  std::unique_ptr<Aggregation> aggregation_;
  std::unique_ptr<SliceExchange> exchange_;
};

}  // namespace caravan

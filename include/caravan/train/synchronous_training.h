// Synchronous training: every step is one update of the whole model. One rank in this version.
#pragma once

#include "caravan/train/run_recorder.h"
#include "caravan/train/trainer.h"

namespace caravan {

class SynchronousRun {
 public:
  static Llama::Layout layout(const RunConfig& config);
  static Executor::Limits limits(const RunConfig& config);
};

/// What a synchronous run is; it has no rounds: 0.
RunIdentity synchronous_identity(const RunInputs& inputs);

/// Trains for training.steps steps, evaluating before the first, every training.eval_every and after the
/// last, and writes the model to <output.dir>/checkpoints/ at the end. The history's "round" is the step.
void run_synchronous(const RunInputs& inputs, Backend& backend, const OpenRecorder& open_recorder);

}  // namespace caravan

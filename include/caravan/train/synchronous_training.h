// The loop of a synchronous run: batches in, updates, evaluations, the model at the end.
#pragma once

#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/train/run_recorder.h"
#include "caravan/train/synchronous_run.h"

namespace caravan {

/// What a synchronous run on `ranks` ranks is; it has no rounds: 0.
RunIdentity synchronous_identity(const RunInputs& inputs, std::int64_t ranks);

/// Steps of a run over so many samples: training.steps, or those of training.epochs, with packing the most
/// there can be.
std::int64_t most_synchronous_steps(const RunConfig& config, std::int64_t ranks, std::int64_t samples);

/// Where the model computes, and what computes in host memory: one and the same on CPUs.
struct ComputeBackends {
  Backend& device;
  Backend& host;
};

/// Trains for training.steps steps (or training.epochs), evaluating before the first, every
/// training.eval_every and after the last, and saving the state of training every checkpoint.every and after
/// the last; writes the model to <output.dir>/checkpoints/ at the end. The history's "round" is the step.
/// `resume`, null or a checkpoint that passed check_training_checkpoint(): goes on from there, on the same
/// mesh with the bits of a run that was never interrupted. Collective.
void run_synchronous(const RunInputs& inputs, Communicator& world, const ComputeBackends& on,
                     const OpenRecorder& open_recorder, ShardedCheckpointReader* resume);

}  // namespace caravan

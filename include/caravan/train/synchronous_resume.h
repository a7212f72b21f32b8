// Whether and where a synchronous run goes on: everything that can be wrong with what is left of the earlier
// part is found here, before anything is allocated or written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "caravan/comm/communicator.h"
#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/train/run_inputs.h"
#include "caravan/train/run_recorder.h"

namespace caravan {

/// True when `path`, a checkpoint to go on from, lies in the checkpoints folder of output.dir.
bool is_checkpoint_of_run(const std::string& path, const RunConfig& config);

/// The checkpoint that `resume` names: the newest one in output.dir that is intact, or the one at a path.
/// Null where `latest` finds none. Throws IoError for a damaged one at a path. Collective; every rank throws
/// the same.
std::unique_ptr<ShardedCheckpointReader> find_training_checkpoint(const RunConfig& config,
                                                                  Communicator& world);

/// Whether a run on `ranks` ranks may go on from `checkpoint`, or start afresh when it is null. Throws
/// ConfigError, naming the key and both values, when output.dir or the checkpoint belong to another run;
/// IoError when the data have changed, when the checkpoint holds another model, when results.h5 holds less
/// than it says, and when a fresh start would destroy finished work. Reads files; every rank may call it.
void check_training_checkpoint(const ShardedCheckpointReader* checkpoint, const RunInputs& inputs,
                               std::int64_t ranks);

/// Throws unless output.dir still holds the checkpoint, or none when it is null. Called once the folder is
/// locked; one process.
void check_still_there(const ShardedCheckpointReader* checkpoint, const RunInputs& inputs,
                       std::int64_t ranks);

/// The rows of results.h5 with which the run goes on. Null, with a warning, for a checkpoint that was moved
/// away from its run's results.
std::unique_ptr<RunRecorder::ResumePoint> results_to_resume(const ShardedCheckpointReader& checkpoint,
                                                            const RunConfig& config);

/// Takes the checkpoints in output.dir behind the one the run goes on from out of its way: their steps will
/// be taken anew. Those that `resume: latest` passed over are set aside, since what one start could not read
/// (a file system that lags, a disk that is away) another may; with a path it was the user who went back, and
/// they are removed. One process.
void drop_later_checkpoints(const ShardedCheckpointReader& checkpoint, const RunConfig& config);

}  // namespace caravan

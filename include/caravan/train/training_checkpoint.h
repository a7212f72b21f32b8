// What a training checkpoint holds of a synchronous run, and the way back into a run on any mesh.
#pragma once

#include <string>
#include <vector>

#include "caravan/data/batch_loader.h"
#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/io/sharded_checkpoint_writer.h"
#include "caravan/train/run_inputs.h"
#include "caravan/train/run_recorder.h"
#include "caravan/train/synchronous_run.h"

namespace caravan {

/// Where a run stands between two steps. Schedules are functions of the step; the order of the data is one of
/// seed and epoch: nothing else is drawn at random.
struct TrainingPosition {
  std::int64_t step = 0;       // finished
  BatchLoader::Position data;  // of the next batch
  std::int64_t samples = 0;    // consumed by all ranks together
};

/// The parts of parameters and moments that this rank writes: every element of the model is in one rank's.
/// Where ranks hold copies, each writes some rows of the large tensors and some of the small tensors. The
/// sources view the run's memory: it must not change before they are written or staged.
std::vector<ShardSource> checkpoint_sources(const TrainingStore& store, const Adamw& optimizer,
                                            const ModelConfig& model, const Coordinates& at);

/// Everything else about the run. `recorder` is null on ranks other than 0, whose state is not looked at.
TrainingState training_state(const RunInputs& inputs, SynchronousRun& run, const TrainingPosition& position,
                             const RunRecorder* recorder);

/// The position a checkpoint was written at. Throws IoError when it says none.
TrainingPosition training_position(const ShardedCheckpointReader& checkpoint);

/// Fills this rank's part of parameters and moments, and sets the counts of steps. Throws IoError.
/// Collective.
void restore(SynchronousRun& run, ShardedCheckpointReader& checkpoint);

/// Throws IoError unless the checkpoint has the parameters of `model` in `dtype`, their moments, and no other
/// tensor: the first one that differs.
void check_tensors(const ShardedCheckpointReader& checkpoint, const ModelConfig& model,
                   const RunConfig& config);

/// "17 samples of 1234 bytes": of a data set this and its checksum are compared when a run goes on.
std::string data_text(const Dataset& dataset);
inline constexpr const char* kTrainDataKey = "data.train";  // in TrainingState::extra
inline constexpr const char* kEvalDataKey = "data.eval";
/// The key beside one of those under which the checksum stands; checkpoints of earlier versions have none.
std::string data_checksum_key(const char* data_key);

}  // namespace caravan

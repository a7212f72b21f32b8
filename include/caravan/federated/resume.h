// Whether and where a federated run goes on: everything that can be wrong with what is left of the earlier
// part is found here, before anything is written.
#pragma once

#include <cstdint>
#include <optional>

#include "caravan/io/run_folder.h"
#include "caravan/train/run_inputs.h"

namespace caravan {

/// The newest complete checkpoint of this run in its output folder; nullopt when no round is finished, which
/// means starting afresh. Throws ConfigError, naming the key and both values, when the folder holds another
/// run: only output, resume, threads, save_every_round and more rounds may differ; and when finished rounds
/// have lost their checkpoint. Throws IoError when results.h5 is damaged or holds less than the checkpoint's
/// rounds. Reads files; every rank may call it.
std::optional<FoundCheckpoint> find_resume_state(const RunConfig& config, std::int64_t ranks);

/// The weights of the checkpoint, for a run of `model`. Throws IoError when a file of the checkpoint, or of
/// the state beside it, is missing, damaged, or of another model. Reads no weights yet.
ModelSource open_resume_model(const FoundCheckpoint& state, const RunConfig& config,
                              const ModelConfig& model);

}  // namespace caravan

// The rounds of a federated run from start to end: resume, train, aggregate, evaluate, record, save.
#pragma once

#include <optional>
#include <string>

#include "caravan/comm/communicator.h"
#include "caravan/federated/federated_run.h"
#include "caravan/io/run_folder.h"
#include "caravan/train/run_recorder.h"

namespace caravan {

/// The newest complete checkpoint of this run in its output folder; nullopt when there is none, which means
/// starting afresh. Throws ConfigError, naming the key and both values, when the checkpoint belongs to
/// another configuration: only output, resume, threads and more rounds may differ. Reads files; every rank
/// may call it.
std::optional<FoundCheckpoint> find_resume_state(const RunConfig& config, std::int64_t ranks);

/// Runs rounds up to federated.rounds. `recorder` is on rank 0, null elsewhere. Collective.
void run_federated(const RunInputs& inputs, Communicator& world, Backend& backend, RunRecorder* recorder,
                   const std::optional<FoundCheckpoint>& resume);

}  // namespace caravan

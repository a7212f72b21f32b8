// The rounds of a federated run from start to end: train, aggregate, evaluate, record, save.
#pragma once

#include <optional>
#include <string>

#include "caravan/comm/communicator.h"
#include "caravan/federated/federated_run.h"
#include "caravan/federated/resume.h"
#include "caravan/train/run_recorder.h"

namespace caravan {

/// What a federated run on `ranks` ranks is.
RunIdentity federated_identity(const RunInputs& inputs, std::int64_t ranks);

/// Runs rounds up to federated.rounds. Collective.
void run_federated(const RunInputs& inputs, Communicator& world, Backend& backend,
                   const OpenRecorder& open_recorder, const std::optional<FoundCheckpoint>& resume);

}  // namespace caravan

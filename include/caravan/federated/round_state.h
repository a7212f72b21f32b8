// State of a federated run that outlives a round and is not in the model: kept AdamW moments of every slot,
// the aggregator's outer momentum, float32 masters of a 16-bit model. With the default options in float32 or
// float64 there is none and nothing is written.
#pragma once

#include <string>

#include "caravan/comm/communicator.h"
#include "caravan/federated/federated_run.h"

namespace caravan {

/// Every rank writes its slot's file, the aggregator its own. Replaces older files. Collective.
void save_round_state(const std::string& folder, FederatedRun& run, Communicator& world);

/// Throws IoError when a file that load_round_state will read is missing or damaged; reads their headers
/// only.
void check_round_state(const std::string& folder, const RunConfig& config, std::int64_t ranks);

/// Reads this rank's part of what save_round_state wrote. Throws IoError when a file is missing or belongs to
/// another model.
void load_round_state(const std::string& folder, FederatedRun& run);

}  // namespace caravan

// What is looked at before a run touches anything: that ranks agree, that its inputs survive --overwrite,
// that memory and disk suffice.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/federated/run_plan.h"
#include "caravan/io/run_folder.h"
#include "caravan/train/run_inputs.h"

namespace caravan::app {

/// --overwrite removes what output.dir holds; throws ConfigError when what the run reads is among it.
void check_inputs_survive(const RunConfig& config);

/// Name and value of something that every rank found out for itself.
using Facts = std::vector<std::pair<std::string, std::string>>;

/// Every rank decided for itself from the files it sees; a difference (another file system, another
/// environment) would end in a wrong model or a hang. Collective; every rank throws the same.
void check_agreement(Communicator& world, const Facts& facts);

/// "the training samples", "the held-out samples", "the tokenizer": each by its checksum, where there is one.
Facts input_facts(const RunInputs& inputs);
/// One of them.
std::string fact_of(const std::optional<Dataset>& samples);
std::string fact_of(const std::optional<TokenizerFile>& tokenizer);

/// Throws ConfigError on every rank when one sees another folder under `folder` than rank 0, which holds the
/// run's lock there: on a disk of its own node its part of a checkpoint would be lost. Waits some seconds for
/// network file systems that show a new file late. Collective.
void check_folder_is_shared(const std::string& folder, Communicator& world);

/// What of a plan lies in host memory: all of it on CPUs.
enum class HostUse : std::uint8_t { kEverything, kOffloadOnly };
/// Says on rank 0 for which machines the ranks' host memory does not suffice. Collective.
void warn_about_memory(const RunPlan& plan, HostUse use, Communicator& world);

/// Throws AgreedError on every rank when the memory of a machine does not suffice for what its ranks will
/// hold, this one `wanted_bytes`; `what` begins the message. Collective.
void require_memory(Communicator& world, std::int64_t wanted_bytes, const std::string& what);

/// Throws IoError when output.dir has no room for the next checkpoint of `plan`, counting what kOverwrite
/// frees; warns when it has none for all that will be kept. `finished`: rounds a resumed run has behind it.
void check_free_space(const RunPlan& plan, const RunConfig& config, ExistingRun existing,
                      std::int64_t finished);

}  // namespace caravan::app

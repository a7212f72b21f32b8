// The machine under the program: threads, memory, the compute backend, host names.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "caravan/backend/backend.h"
#include "caravan/comm/communicator.h"

namespace caravan::app {

/// Threads of this rank, for our own loops and for BLAS: `wanted`, else OPENBLAS_NUM_THREADS, else the cores
/// this process may use (by affinity and quota) divided by the ranks that share them. Collective.
void set_threads(std::optional<std::int64_t> wanted);
int threads();
/// Cores that the ranks may use together, by affinity and quota, on all their machines. Collective.
int usable_core_count(Communicator& world);
std::string host_name();
/// Names of all machines, in rank order without repetition, comma between. Collective; complete on rank 0.
std::string host_names(Communicator& world);

}  // namespace caravan::app

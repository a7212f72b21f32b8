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
/// How many of the first ranks have a core each, by affinity and quota of their machines, and how many cores
/// all ranks may use together. Collective.
struct CoreCount {
  int ranks = 1;
  int cores = 1;
};
CoreCount count_cores(Communicator& world);
std::string host_name();
/// Names of all machines, in rank order without repetition, comma between. Collective; complete on rank 0.
std::string host_names(Communicator& world);

}  // namespace caravan::app

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
/// this process may use divided by the ranks that may use the same ones. Collective.
void set_threads(std::optional<std::int64_t> wanted);
int threads();
/// The best backend there is.
std::unique_ptr<Backend> make_backend();
/// Memory that can be had without swapping; 0 when the system does not say.
std::int64_t available_memory_bytes();
/// Ranks on this machine, 1 without MPI.
int local_ranks();
/// Names of all machines, in rank order without repetition, comma between. Collective; complete on rank 0.
std::string host_names(Communicator& world);

}  // namespace caravan::app

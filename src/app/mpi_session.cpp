#include "mpi_session.h"

#include <mpi.h>

#include <cstdlib>
#include <string>

#include "caravan/core/error.h"

namespace caravan::app {
namespace {

/// A whole number from the environment, or `fallback` when the variable is absent or something else.
int environment_number(const char* name, int fallback) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') {
    return fallback;
  }
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return *end == '\0' && value >= 0 && value < 1L << 30 ? static_cast<int>(value) : fallback;
}

}  // namespace

LaunchPlace launch_place() {
  if (const int rank = environment_number("OMPI_COMM_WORLD_RANK", -1); rank >= 0) {
    return {rank, environment_number("OMPI_COMM_WORLD_SIZE", 1)};
  }
  // srun --mpi=pmix sets PMIX_RANK; SLURM_NTASKS alone also stands in the environment of a batch script.
  if (const int rank = environment_number("PMIX_RANK", -1); rank >= 0) {
    return {rank, environment_number("SLURM_STEP_NUM_TASKS", 1)};
  }
  if (const int rank = environment_number("PMI_RANK", -1); rank >= 0) {
    return {rank, environment_number("PMI_SIZE", 1)};
  }
  return {};
}

bool mpi_is_running() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

LaunchPlace current_place() {
  if (!mpi_is_running()) {
    return launch_place();
  }
  LaunchPlace place;
  MPI_Comm_rank(MPI_COMM_WORLD, &place.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &place.size);
  return place;
}

MpiSession::~MpiSession() {
  if (mpi_is_running()) {
    MPI_Finalize();
  }
}

void MpiSession::start() {
  if (mpi_is_running()) {
    return;
  }
  int provided = MPI_THREAD_SINGLE;
  // Our own threads only compute; every MPI call is made by the thread that runs main.
  const int status = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (status != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED) {
    fail<CommError>("MPI did not start (status {}, thread level {}); check that mpirun and the library match",
                    status, provided);
  }
}

}  // namespace caravan::app

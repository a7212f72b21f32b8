#include "caravan/comm/mpi_session.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "mpi_check.h"

namespace caravan {
namespace {

/// MPI calls are legal: initialised and not yet finalised.
bool is_running() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) : exceptions_at_start_(std::uncaught_exceptions()) {
  if (!under_mpirun()) {
    world_ = std::make_unique<SelfCommunicator>();
    return;
  }
  int initialized = 0;
  CARAVAN_MPI(MPI_Initialized(&initialized));
  CARAVAN_CHECK(initialized == 0, "a second MpiSession in one process");
  int provided = MPI_THREAD_SINGLE;
  CARAVAN_MPI(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided));
  if (provided < MPI_THREAD_FUNNELED) {
    fail<CommError>(
        "MPI_Init_thread: this MPI library allows no threads beside the one that calls it; use one "
        "that provides MPI_THREAD_FUNNELED");
  }
  world_ = MpiCommunicator::over_world();
  MPI_Comm machine = MPI_COMM_NULL;
  CARAVAN_MPI(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_->rank(), MPI_INFO_NULL, &machine));
  CARAVAN_MPI(MPI_Comm_rank(machine, &local_rank_));
  CARAVAN_MPI(MPI_Comm_size(machine, &local_size_));
  CARAVAN_MPI(MPI_Comm_free(&machine));
}

MpiSession::~MpiSession() {
  if (!is_running()) {
    return;
  }
  if (std::uncaught_exceptions() > exceptions_at_start_) {
    abort(1);
  }
  world_.reset();
  MPI_Finalize();
}

bool MpiSession::under_mpirun() {
  constexpr std::array<const char*, 3> kRankVariables = {
      "OMPI_COMM_WORLD_RANK",  // Open MPI's mpirun
      "PMIX_RANK",             // srun --mpi=pmix and other PMIx launchers
      "PMI_RANK",              // hydra, srun --mpi=pmi2
  };
  return std::any_of(kRankVariables.begin(), kRankVariables.end(),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

void MpiSession::abort(int code) {
  std::fflush(nullptr);
  if (is_running()) {
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  std::_Exit(code);
}

}  // namespace caravan

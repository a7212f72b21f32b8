#include "caravan/comm/mpi_session.h"

#include <mpi.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>

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

/// A whole number from the environment; absent when the variable is absent or something else.
std::optional<int> environment_number(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, status] = std::from_chars(text, end, value);
  return status == std::errc() && stop == end && value >= 0 ? std::optional<int>(value) : std::nullopt;
}

/// Where launchers say which rank this is and how many there are.
struct Launcher {
  const char* rank;
  const char* size;
};
constexpr std::array<Launcher, 3> kLaunchers = {{
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},  // Open MPI's mpirun
    {"PMIX_RANK", "SLURM_STEP_NUM_TASKS"},  // srun --mpi=pmix; SLURM_NTASKS is in batch scripts too
    {"PMI_RANK", "PMI_SIZE"},               // hydra, srun --mpi=pmi2
}};

std::optional<LaunchPlace> find_launcher() {
  for (const Launcher& launcher : kLaunchers) {
    if (const std::optional<int> rank = environment_number(launcher.rank)) {
      return LaunchPlace{*rank, environment_number(launcher.size).value_or(1)};
    }
  }
  return std::nullopt;
}

MpiSession* current_session = nullptr;

}  // namespace

LaunchPlace launch_place() {
  return find_launcher().value_or(LaunchPlace{});
}

MpiSession::MpiSession(int& argc, char**& argv) : exceptions_at_start_(std::uncaught_exceptions()) {
  CARAVAN_CHECK(current_session == nullptr, "a second MpiSession in one process");
  if (!under_mpirun()) {
    world_ = std::make_unique<SelfCommunicator>();
    current_session = this;
    return;
  }
  int provided = MPI_THREAD_SINGLE;
  CARAVAN_MPI(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided));
  if (provided < MPI_THREAD_FUNNELED) {
    fail<CommError>(
        "MPI_Init_thread: this MPI library allows no threads beside the one that calls it; use one "
        "that provides MPI_THREAD_FUNNELED");
  }
  world_ = MpiCommunicator::over_world();
  world_->set_name("world");
  MPI_Comm machine = MPI_COMM_NULL;
  CARAVAN_MPI(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_->rank(), MPI_INFO_NULL, &machine));
  CARAVAN_MPI(MPI_Comm_rank(machine, &local_rank_));
  CARAVAN_MPI(MPI_Comm_size(machine, &local_size_));
  CARAVAN_MPI(MPI_Comm_free(&machine));
  current_session = this;
}

MpiSession::~MpiSession() {
  current_session = nullptr;
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
  return find_launcher().has_value();
}

MpiSession& MpiSession::current() {
  CARAVAN_CHECK(exists(), "no MpiSession: main creates one for commands that run on several ranks");
  return *current_session;
}

bool MpiSession::exists() {
  return current_session != nullptr;
}

void MpiSession::abort(int code) {
  std::fflush(nullptr);
  if (is_running()) {
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  std::_Exit(code);
}

}  // namespace caravan

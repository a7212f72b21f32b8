// MPI's life in the program: started only by commands that train or evaluate, so that --help, convert,
// inspect and the tokenizer answer at once and need no launcher.
#pragma once

namespace caravan::app {

/// This process's place as the launcher (mpirun, srun) tells it in the environment; rank 0 of 1 without one.
/// Usable before and without MPI_Init.
struct LaunchPlace {
  int rank = 0;
  int size = 1;
};
LaunchPlace launch_place();

/// True between start and end of a session.
bool mpi_is_running();
/// Rank and number of ranks of MPI_COMM_WORLD while a session runs, else launch_place().
LaunchPlace current_place();

/// Finalizes MPI at the end of main when `start` was called.
class MpiSession {
 public:
  MpiSession() = default;
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  MpiSession(MpiSession&&) = delete;
  MpiSession& operator=(MpiSession&&) = delete;

  /// MPI_Init; collective over all ranks. Throws CommError when MPI does not start. A second call does
  /// nothing.
  void start();
};

}  // namespace caravan::app

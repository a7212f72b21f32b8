// The life of MPI in this process. Started without mpirun or srun, the program is one rank and MPI is never
// touched: it starts faster and works where MPI does not.
#pragma once

#include <memory>

#include "caravan/comm/communicator.h"

namespace caravan {

/// This process's place in the job as the launcher tells it in the environment; rank 0 of 1 without one.
/// Usable before and without MPI, for messages and for refusing several ranks.
struct LaunchPlace {
  int rank = 0;
  int size = 1;
};
LaunchPlace launch_place();

/// Exactly one per process, living in main around everything that communicates; every Communicator must be
/// gone before it. Initialises MPI when under_mpirun(), for calls from the main thread only. Destroyed while
/// an exception passes through it, it ends the job (others may be waiting and would hang in the
/// finalisation).
class MpiSession {
 public:
  /// Removes what belongs to MPI from the arguments. CommError when MPI cannot give what is needed; then
  /// abort() still ends the other ranks. Collective.
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  /// The one session of this process. InternalError when there is none.
  static MpiSession& current();
  static bool exists();

  /// All ranks of the job; a SelfCommunicator outside mpirun.
  Communicator& world() { return *world_; }
  /// This rank among the ranks on the same machine, and how many those are.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// True when a launcher started this process as one of a group (mpirun, srun with PMIx, hydra).
  static bool under_mpirun();
  /// Ends all ranks of the job with exit status `code`, at once, also when the others wait in a collective.
  /// Without MPI it ends this process. Flushes standard output and error; runs no destructors.
  [[noreturn]] static void abort(int code);

 private:
  std::unique_ptr<Communicator> world_;
  int local_rank_ = 0;
  int local_size_ = 1;
  int exceptions_at_start_ = 0;
};

}  // namespace caravan

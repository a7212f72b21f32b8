// Every MPI call goes through CARAVAN_MPI: its return code becomes a CommError. Communicators carry
// MPI_ERRORS_RETURN, or MPI would end the process before we see the code.
#pragma once

namespace caravan::detail {

/// Throws CommError naming the call, this process's rank in the job and MPI's error text.
void check_mpi(int code, const char* call);

}  // namespace caravan::detail

#define CARAVAN_MPI(call) ::caravan::detail::check_mpi((call), #call)

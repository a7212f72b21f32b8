#include "mpi_check.h"

#include <mpi.h>

#include <array>
#include <string_view>

#include "caravan/core/error.h"

namespace caravan::detail {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) {
    return;
  }
  const std::string_view text = call;
  const std::string_view name = text.substr(0, text.find('('));
  std::array<char, MPI_MAX_ERROR_STRING> reason{};
  int length = 0;
  if (MPI_Error_string(code, reason.data(), &length) != MPI_SUCCESS) {
    length = 0;
  }
  int rank = -1;
  if (MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS) {
    rank = -1;
  }
  fail<CommError>(
      "{} failed on rank {}: {} (MPI error {}); the ranks disagree about what they exchange or one was lost",
      name, rank, std::string_view(reason.data(), static_cast<std::size_t>(length)), code);
}

}  // namespace caravan::detail

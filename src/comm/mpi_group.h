// What an MpiCommunicator owns, and the element types on the wire.
#pragma once

#include <mpi.h>

#include <cstdint>

#include "caravan/core/dtype.h"

namespace caravan::detail {

struct MpiGroup {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::int64_t max_count = 0;
};

/// The MPI type that moves elements of `dtype`; for reductions see MpiCommunicator::do_all_reduce.
MPI_Datatype mpi_type(DType dtype);

}  // namespace caravan::detail

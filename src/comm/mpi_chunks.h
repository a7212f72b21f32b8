// Cutting a tensor into calls that MPI's int counts can describe, and reductions in its terms.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstdint>

#include "caravan/comm/communicator.h"
#include "caravan/core/error.h"
#include "caravan/core/narrow.h"

namespace caravan::detail {

inline char* element(const TensorView& view, std::int64_t index) {
  return static_cast<char*>(view.raw()) + index * static_cast<std::int64_t>(dtype_bytes(view.dtype()));
}

/// Calls transfer(pointer, count) over all of `view`, at most `max_count` elements at a time.
template <class Transfer>
void in_chunks(const TensorView& view, std::int64_t max_count, const Transfer& transfer) {
  for (std::int64_t at = 0; at < view.numel(); at += max_count) {
    transfer(element(view, at), narrow<int>(std::min(max_count, view.numel() - at)));
  }
}

inline MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMax:
      return MPI_MAX;
    case ReduceOp::kMin:
      return MPI_MIN;
  }
  fail<InternalError>("no MPI operation for {}", static_cast<int>(op));
}

/// Throws CommError unless the message had the size the receiver gave.
void check_received(const MPI_Status& status, MPI_Datatype type, int expected, int from);

}  // namespace caravan::detail

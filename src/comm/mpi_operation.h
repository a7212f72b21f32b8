// One started operation: the MPI requests it consists of, until all are complete.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "caravan/comm/communicator.h"
#include "mpi_group.h"

namespace caravan::detail {

/// Keeps its group alive, and is in the group's list of open operations while it exists.
class MpiOperation {
 public:
  explicit MpiOperation(std::shared_ptr<MpiGroup> group);
  ~MpiOperation();
  MpiOperation(const MpiOperation&) = delete;
  MpiOperation& operator=(const MpiOperation&) = delete;

  // Each starts transfers of the whole view in chunks and returns the number of library calls.
  std::int64_t send(const TensorView& values, int peer, int tag);
  std::int64_t receive(const TensorView& values, int peer, int tag);
  std::int64_t all_reduce(const TensorView& values, ReduceOp op);

  /// A contiguous tensor that lives as long as this operation.
  TensorView staging(DType dtype, const Shape& shape);

  /// Lets the library work once; never blocks. Errors are kept for wait().
  void advance();
  /// Returns when every request is complete. CommError when one failed or a message had another size.
  void wait();

 private:
  struct Part {
    const char* call = nullptr;  // "MPI_Irecv": for messages
    MPI_Datatype type = MPI_DATATYPE_NULL;
    int count = 0;
    int peer = -1;  // of a receive; -1: nothing to check on arrival
  };
  void add(MPI_Request request, const Part& part);
  /// Of the request next_, which is complete or has failed.
  void check_next(int code, const MPI_Status& status);

  std::shared_ptr<MpiGroup> group_;
  std::vector<MPI_Request> requests_;
  std::vector<Part> parts_;
  std::size_t next_ = 0;  // all before it are complete
  std::vector<StagingBuffer> staging_;
  std::exception_ptr error_;  // found by advance()
};

}  // namespace caravan::detail

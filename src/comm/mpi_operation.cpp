#include "mpi_operation.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "mpi_check.h"
#include "mpi_chunks.h"
#include "start_queue.h"

namespace caravan::detail {

MpiGroup::~MpiGroup() {
  // Nothing useful can be done about an error here, and the process is leaving the group anyway.
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && comm != MPI_COMM_NULL) {
    MPI_Comm_free(&comm);
  }
}

void check_received(const MPI_Status& status, MPI_Datatype type, int expected, int from) {
  int received = 0;
  CARAVAN_MPI(MPI_Get_count(&status, type, &received));
  if (received != expected) {
    fail<CommError>(
        "received {} elements from rank {} where {} were expected: both sides must give the same size",
        received, from, expected);
  }
}

MpiOperation::MpiOperation(std::shared_ptr<MpiGroup> group) : group_(std::move(group)) {
  group_->open.push_back(this);
}

MpiOperation::~MpiOperation() {
  std::erase(group_->open, this);
  std::move(staging_.begin(), staging_.end(), std::back_inserter(group_->staging));
}

void MpiOperation::add(MPI_Request request, const Part& part) {
  requests_.push_back(request);
  parts_.push_back(part);
}

std::int64_t MpiOperation::send(const TensorView& values, int peer, int tag) {
  const MPI_Datatype type = mpi_type(values.dtype());
  std::int64_t calls = 0;
  in_chunks(values, group_->max_count, [&](char* data, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    CARAVAN_MPI(MPI_Isend(data, count, type, peer, tag, group_->comm, &request));
    add(request, {.call = "MPI_Isend"});
    ++calls;
  });
  return calls;
}

std::int64_t MpiOperation::receive(const TensorView& values, int peer, int tag) {
  const MPI_Datatype type = mpi_type(values.dtype());
  std::int64_t calls = 0;
  in_chunks(values, group_->max_count, [&](char* data, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    CARAVAN_MPI(MPI_Irecv(data, count, type, peer, tag, group_->comm, &request));
    add(request, {.call = "MPI_Irecv", .type = type, .count = count, .peer = peer});
    ++calls;
  });
  return calls;
}

std::int64_t MpiOperation::all_reduce(const TensorView& values, ReduceOp op) {
  const auto block = kReduceBlockBytes / static_cast<std::int64_t>(dtype_bytes(values.dtype()));
  std::int64_t calls = 0;
  in_chunks(values, std::min(group_->max_count, block), [&](char* data, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    CARAVAN_MPI(MPI_Iallreduce(MPI_IN_PLACE, data, count, mpi_type(values.dtype()), mpi_op(op), group_->comm,
                               &request));
    add(request, {.call = "MPI_Iallreduce"});
    ++calls;
  });
  return calls;
}

TensorView MpiOperation::staging(DType dtype, const Shape& shape) {
  const auto bytes = static_cast<std::size_t>(shape.numel()) * dtype_bytes(dtype);
  std::vector<StagingBuffer>& unused = group_->staging;
  // The smallest that is large enough; a new one takes the place of the largest that is not.
  std::sort(unused.begin(), unused.end(),
            [](const StagingBuffer& a, const StagingBuffer& b) { return a.bytes < b.bytes; });
  auto found = std::find_if(unused.begin(), unused.end(),
                            [&](const StagingBuffer& buffer) { return buffer.bytes >= bytes; });
  if (found == unused.end() && !unused.empty()) {
    unused.pop_back();
    found = unused.end();
  }
  if (found != unused.end()) {
    staging_.push_back(std::move(*found));
    unused.erase(found);
  } else {
    staging_.push_back({std::make_unique_for_overwrite<std::byte[]>(bytes), bytes});
  }
  return {staging_.back().data.get(), dtype, shape};
}

void MpiOperation::check_next(int code, const MPI_Status& status) {
  const Part& part = parts_[next_++];
  check_mpi(code, part.call);
  if (part.peer >= 0) {
    check_received(status, part.type, part.count, part.peer);
  }
}

void MpiOperation::advance() {
  // A test that fails has let the library work on everything it has in flight; one is enough.
  int is_complete = 1;
  while (is_complete != 0 && next_ < requests_.size() && error_ == nullptr) {
    MPI_Status status{};
    const int code = MPI_Test(&requests_[next_], &is_complete, &status);
    if (is_complete != 0 || code != MPI_SUCCESS) {
      try {
        check_next(code, status);
      } catch (...) {
        error_ = std::current_exception();
      }
    }
  }
}

void MpiOperation::wait() {
  StartQueue::of_this_rank().flush();
  if (error_ != nullptr) {
    std::rethrow_exception(error_);
  }
  // Not MPI_Waitall: that of Open MPI 4.1 spins forever when a message was longer than its receive.
  while (next_ < requests_.size()) {
    MPI_Status status{};
    const int code = MPI_Wait(&requests_[next_], &status);
    check_next(code, status);
  }
}

}  // namespace caravan::detail

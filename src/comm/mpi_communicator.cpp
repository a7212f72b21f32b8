// MpiCommunicator but for gatherv and scatterv (mpi_gather.cpp) and for what is started (mpi_start.cpp).
#include "caravan/comm/mpi_communicator.h"

#include <algorithm>
#include <utility>

#include "caravan/core/error.h"
#include "caravan/core/narrow.h"
#include "copy.h"
#include "half_values.h"
#include "mpi_check.h"
#include "mpi_chunks.h"
#include "mpi_group.h"

namespace caravan {
namespace detail {

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return MPI_FLOAT;
    case DType::kFloat64:
      return MPI_DOUBLE;
    case DType::kBFloat16:
    case DType::kFloat16:
      return MPI_UINT16_T;
    case DType::kComplex128:
      return MPI_C_DOUBLE_COMPLEX;
    case DType::kInt64:
      return MPI_INT64_T;
    case DType::kInt32:
      return MPI_INT32_T;
    case DType::kInt16:
      return MPI_INT16_T;
    case DType::kInt8:
      return MPI_INT8_T;
    case DType::kUInt8:
    case DType::kBool:
      return MPI_UINT8_T;
  }
  fail<InternalError>("no MPI type for dtype {}", static_cast<int>(dtype));
}

}  // namespace detail

using detail::check_received;
using detail::element;
using detail::in_chunks;

namespace {

/// Takes over `comm` (also when this throws).
std::unique_ptr<detail::MpiGroup> describe(MPI_Comm comm, std::int64_t max_count) {
  auto group = std::make_unique<detail::MpiGroup>();
  group->comm = comm;
  group->max_count = max_count;
  CARAVAN_MPI(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
  CARAVAN_MPI(MPI_Comm_rank(comm, &group->rank));
  CARAVAN_MPI(MPI_Comm_size(comm, &group->size));
  return group;
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::unique_ptr<detail::MpiGroup> group) : group_(std::move(group)) {}

std::unique_ptr<MpiCommunicator> MpiCommunicator::over_world(std::int64_t max_count) {
  CARAVAN_CHECK(max_count >= 1 && max_count <= kMaxCount, "max_count {} is not in [1, {}]", max_count,
                kMaxCount);
  int initialized = 0;
  CARAVAN_MPI(MPI_Initialized(&initialized));
  CARAVAN_CHECK(initialized != 0, "an MPI group before MPI runs: needs an MpiSession, and mpirun");
  CARAVAN_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  MPI_Comm comm = MPI_COMM_NULL;
  CARAVAN_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm));
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(describe(comm, max_count)));
}

MpiCommunicator::~MpiCommunicator() = default;

int MpiCommunicator::rank() const {
  return group_->rank;
}

int MpiCommunicator::size() const {
  return group_->size;
}

std::unique_ptr<Communicator> MpiCommunicator::do_split(int color, int key) {
  MPI_Comm comm = MPI_COMM_NULL;
  CARAVAN_MPI(MPI_Comm_split(group_->comm, color, key, &comm));
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(describe(comm, group_->max_count)));
}

void MpiCommunicator::do_all_reduce(const TensorView& values, ReduceOp op) {
  if (detail::is_half(values.dtype())) {
    return do_start_all_reduce(values, op).wait();
  }
  const auto block = detail::kReduceBlockBytes / static_cast<std::int64_t>(dtype_bytes(values.dtype()));
  in_chunks(values, std::min(group_->max_count, block), [&](char* data, int count) {
    CARAVAN_MPI(MPI_Allreduce(MPI_IN_PLACE, data, count, detail::mpi_type(values.dtype()), detail::mpi_op(op),
                              group_->comm));
    count_library_call(Collective::kAllReduce);
  });
}

void MpiCommunicator::do_broadcast(const TensorView& values, int root) {
  in_chunks(values, group_->max_count, [&](char* data, int count) {
    CARAVAN_MPI(MPI_Bcast(data, count, detail::mpi_type(values.dtype()), root, group_->comm));
    count_library_call(Collective::kBroadcast);
  });
}

void MpiCommunicator::do_send(const TensorView& values, int peer, int tag) {
  in_chunks(values, group_->max_count, [&](char* data, int count) {
    CARAVAN_MPI(MPI_Send(data, count, detail::mpi_type(values.dtype()), peer, tag, group_->comm));
    count_library_call(Collective::kPointToPoint);
  });
}

void MpiCommunicator::do_receive(const TensorView& values, int peer, int tag) {
  const MPI_Datatype type = detail::mpi_type(values.dtype());
  in_chunks(values, group_->max_count, [&](char* data, int count) {
    MPI_Status status{};
    CARAVAN_MPI(MPI_Recv(data, count, type, peer, tag, group_->comm, &status));
    check_received(status, type, count, peer);
    count_library_call(Collective::kPointToPoint);
  });
}

void MpiCommunicator::do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming,
                                      int from) {
  if (to == group_->rank) {
    detail::copy_elements(outgoing, incoming);
    return;
  }
  const MPI_Datatype send_type = detail::mpi_type(outgoing.dtype());
  const MPI_Datatype receive_type = detail::mpi_type(incoming.dtype());
  // The two directions may need different numbers of chunks; the side that is done talks to nobody.
  const std::int64_t longest = std::max(outgoing.numel(), incoming.numel());
  for (std::int64_t at = 0; at < longest; at += group_->max_count) {
    const std::int64_t to_send = std::clamp<std::int64_t>(outgoing.numel() - at, 0, group_->max_count);
    const std::int64_t to_receive = std::clamp<std::int64_t>(incoming.numel() - at, 0, group_->max_count);
    MPI_Status status{};
    CARAVAN_MPI(MPI_Sendrecv(to_send > 0 ? element(outgoing, at) : nullptr, narrow<int>(to_send), send_type,
                             to_send > 0 ? to : MPI_PROC_NULL, detail::kSendReceiveTag,
                             to_receive > 0 ? element(incoming, at) : nullptr, narrow<int>(to_receive),
                             receive_type, to_receive > 0 ? from : MPI_PROC_NULL, detail::kSendReceiveTag,
                             group_->comm, &status));
    if (to_receive > 0) {
      check_received(status, receive_type, narrow<int>(to_receive), from);
    }
    count_library_call(Collective::kPointToPoint);
  }
}

void MpiCommunicator::do_barrier() {
  CARAVAN_MPI(MPI_Barrier(group_->comm));
  count_library_call(Collective::kBarrier);
}

}  // namespace caravan

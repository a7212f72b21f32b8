#include "caravan/comm/nccl_communicator.h"

#include <utility>

#include "caravan/core/error.h"
#include "nccl_group.h"

namespace caravan {

using detail::NcclCall;
using detail::NcclGroup;

namespace {

/// Of numbers that are added.
int number_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return nccl::kFloat32;
    case DType::kFloat64:
      return nccl::kFloat64;
    case DType::kBFloat16:
      return nccl::kBFloat16;
    case DType::kFloat16:
      return nccl::kFloat16;
    case DType::kInt64:
      return nccl::kInt64;
    default:
      fail<InternalError>("NCCL adds no {}", dtype_name(dtype));
  }
}

int reduction_code(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return nccl::kSum;
    case ReduceOp::kMax:
      return nccl::kMax;
    case ReduceOp::kMin:
      return nccl::kMin;
  }
  fail<InternalError>("NCCL has no reduction {}", static_cast<int>(op));
}

std::size_t count_of(const TensorView& view) {
  return static_cast<std::size_t>(view.numel());
}

std::size_t bytes_of(const TensorView& view) {
  return static_cast<std::size_t>(view.bytes());
}

constexpr int kIdTag = Communicator::kMaxTag;  // of a message on the host, in a collective call

}  // namespace

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> host_group, DeviceStreams& device,
                                   std::shared_ptr<const NcclLibrary> library, DevicePath path)
    : StagedCommunicator(std::move(host_group), device, path), library_(std::move(library)), path_(path) {
  if (size() == 1) {
    return;
  }
  nccl::UniqueId id = rank() == 0 ? NcclGroup::make_id(*library_) : nccl::UniqueId{};
  host().broadcast(TensorView(id.bytes, DType::kInt8, {sizeof(id.bytes)}), 0);
  noted("nccl_init", [&] { group_ = std::make_shared<NcclGroup>(library_, device, id, rank(), size()); });
}

NcclCommunicator::~NcclCommunicator() = default;

std::unique_ptr<Communicator> NcclCommunicator::do_split(int color, int key) {
  return std::make_unique<NcclCommunicator>(host().split(color, key), device(), library_, path_);
}

bool NcclCommunicator::is_nccl(const TensorView& view) const {
  return group_ != nullptr && is_on_device(view);
}

Pending NcclCommunicator::enqueue(Collective collective, const detail::NcclCall& call, const Enqueue& ask) {
  // Branches of a graph need not run side by side. Were groups recorded on several, one rank's graph could
  // begin with another group's exchange than its peer's; on one stream all ranks have one order.
  const Stream stream = device().stream(device().is_recording() ? StreamId::kTensorComm : stream_id());
  const Mark done = group_->run(current_operation(), stream, call, [&](const nccl::Table& functions) {
    return ask(functions, group_->comm(), stream.handle);
  });
  count_library_call(collective);
  return Pending([group = group_, done] { group->follow(done); });
}

Pending NcclCommunicator::do_start_all_reduce(const TensorView& values, ReduceOp op) {
  if (!is_nccl(values)) {
    return StagedCommunicator::do_start_all_reduce(values, op);
  }
  if (values.numel() == 0) {
    return {};
  }
  return enqueue(Collective::kAllReduce, NcclCall::here("ncclAllReduce"),
                 [&](const nccl::Table& functions, nccl::Comm* comm, void* stream) {
                   return functions.all_reduce(values.raw(), values.raw(), count_of(values),
                                               number_type(values.dtype()), reduction_code(op), comm, stream);
                 });
}

void NcclCommunicator::do_all_reduce(const TensorView& values, ReduceOp op) {
  if (is_nccl(values)) {
    do_start_all_reduce(values, op).wait();
  } else {
    StagedCommunicator::do_all_reduce(values, op);
  }
}

void NcclCommunicator::do_broadcast(const TensorView& values, int root) {
  if (!is_nccl(values)) {
    StagedCommunicator::do_broadcast(values, root);
  } else if (values.numel() > 0) {
    enqueue(Collective::kBroadcast, NcclCall::here("ncclBroadcast"),
            [&](const nccl::Table& functions, nccl::Comm* comm, void* stream) {
              return functions.broadcast(values.raw(), values.raw(), bytes_of(values), nccl::kInt8, root,
                                         comm, stream);
            })
        .wait();
  }
}

Pending NcclCommunicator::do_start_all_gather(const TensorView& mine, const TensorView& gathered) {
  if (!is_nccl(mine)) {
    return StagedCommunicator::do_start_all_gather(mine, gathered);
  }
  if (mine.numel() == 0) {
    return {};
  }
  return enqueue(Collective::kAllGather, NcclCall::here("ncclAllGather"),
                 [&](const nccl::Table& functions, nccl::Comm* comm, void* stream) {
                   return functions.all_gather(mine.raw(), gathered.raw(), bytes_of(mine), nccl::kInt8, comm,
                                               stream);
                 });
}

Pending NcclCommunicator::do_start_reduce_scatter(const TensorView& values, const TensorView& mine) {
  if (!is_nccl(mine)) {
    return StagedCommunicator::do_start_reduce_scatter(values, mine);
  }
  if (mine.numel() == 0) {
    return {};
  }
  return enqueue(Collective::kReduceScatter, NcclCall::here("ncclReduceScatter"),
                 [&](const nccl::Table& functions, nccl::Comm* comm, void* stream) {
                   return functions.reduce_scatter(values.raw(), mine.raw(), count_of(mine),
                                                   number_type(mine.dtype()), nccl::kSum, comm, stream);
                 });
}

void NcclCommunicator::do_send_receive(const TensorView& outgoing, int to, const TensorView& incoming,
                                       int from) {
  if (!is_nccl(outgoing) || to == rank()) {
    StagedCommunicator::do_send_receive(outgoing, to, incoming, from);
    return;
  }
  // In one group of calls: neither waits for the other.
  enqueue(Collective::kPointToPoint, NcclCall::here("ncclSend and ncclRecv"),
          [&](const nccl::Table& functions, nccl::Comm* comm, void* stream) {
            int result = functions.group_start();
            if (result == nccl::kSuccess && outgoing.numel() > 0) {
              result = functions.send(outgoing.raw(), bytes_of(outgoing), nccl::kInt8, to, comm, stream);
            }
            if (result == nccl::kSuccess && incoming.numel() > 0) {
              result = functions.recv(incoming.raw(), bytes_of(incoming), nccl::kInt8, from, comm, stream);
            }
            const int ended = functions.group_end();
            return result != nccl::kSuccess ? result : ended;
          })
      .wait();
}

std::optional<Pending> NcclCommunicator::enqueue_message(const TensorView& values, int peer, int tag,
                                                         bool sends) {
  const NcclGroup::Lane* lane =
      is_nccl(values) ? group_->lane({sends ? rank() : peer, sends ? peer : rank(), tag}) : nullptr;
  if (lane == nullptr) {
    return std::nullopt;
  }
  if (values.numel() == 0) {
    return Pending();
  }
  const Mark done =
      group_->run(current_operation(), lane->stream, NcclCall::here(sends ? "ncclSend" : "ncclRecv"),
                  [&](const nccl::Table& functions) {
                    return sends ? functions.send(values.raw(), bytes_of(values), nccl::kInt8, lane->peer,
                                                  lane->comm, lane->stream.handle)
                                 : functions.recv(values.raw(), bytes_of(values), nccl::kInt8, lane->peer,
                                                  lane->comm, lane->stream.handle);
                  });
  count_library_call(Collective::kPointToPoint);
  return Pending([group = group_, done] { group->follow(done); });
}

void NcclCommunicator::do_begin_replay() {
  group_->begin_replay(current_operation());
}

void NcclCommunicator::do_end_replay() {
  group_->end_replay();
}

void NcclCommunicator::do_send(const TensorView& values, int peer, int tag) {
  if (auto sent = enqueue_message(values, peer, tag, true)) {
    sent->wait();
  } else {
    StagedCommunicator::do_send(values, peer, tag);
  }
}

void NcclCommunicator::do_receive(const TensorView& values, int peer, int tag) {
  if (auto received = enqueue_message(values, peer, tag, false)) {
    received->wait();
  } else {
    StagedCommunicator::do_receive(values, peer, tag);
  }
}

Pending NcclCommunicator::do_start_send(const TensorView& values, int peer, int tag) {
  auto sent = enqueue_message(values, peer, tag, true);
  return sent ? std::move(*sent) : StagedCommunicator::do_start_send(values, peer, tag);
}

Pending NcclCommunicator::do_start_receive(const TensorView& values, int peer, int tag) {
  auto received = enqueue_message(values, peer, tag, false);
  return received ? std::move(*received) : StagedCommunicator::do_start_receive(values, peer, tag);
}

/// The sender makes the id and hands it to the receiver; the others have nothing to do.
void NcclCommunicator::prepare_lane(int sender, int receiver, int tag) {
  const bool sends = rank() == sender;
  if ((!sends && rank() != receiver) || group_->lane({sender, receiver, tag}) != nullptr) {
    return;
  }
  nccl::UniqueId id = sends ? NcclGroup::make_id(*library_) : nccl::UniqueId{};
  const TensorView bytes(id.bytes, DType::kInt8, {sizeof(id.bytes)});
  if (sends) {
    host().send(bytes, receiver, kIdTag);
  } else {
    host().receive(bytes, sender, kIdTag);
  }
  noted("nccl_init", [&] { group_->add_lane({sender, receiver, tag}, id, sends); });
}

void NcclCommunicator::do_prepare_messages(std::span<const int> tags) {
  if (group_ == nullptr) {
    return;
  }
  // Pairs of neighbours in one order for all ranks, so that nobody waits in a circle; those that share no
  // rank make their ways at once.
  for (const int tag : tags) {
    for (const int parity : {0, 1}) {
      for (int low = parity; low < size(); low += 2) {
        const int high = (low + 1) % size();
        prepare_lane(low, high, tag);
        prepare_lane(high, low, tag);
      }
    }
  }
}

}  // namespace caravan

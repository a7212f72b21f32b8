#include "caravan/comm/self_communicator.h"

#include "caravan/core/error.h"
#include "copy.h"

namespace caravan {

std::unique_ptr<Communicator> SelfCommunicator::do_split(int /*color*/, int /*key*/) {
  return alone();
}

std::unique_ptr<Communicator> SelfCommunicator::alone() const {
  return device_ != nullptr ? std::make_unique<SelfCommunicator>(*device_)
                            : std::make_unique<SelfCommunicator>();
}

void SelfCommunicator::copy(const TensorView& from, const TensorView& to) {
  if (from.device().kind == DeviceKind::kCuda || to.device().kind == DeviceKind::kCuda) {
    detail::copy_on_device(*device_, from, to, device_->stream(StreamId::kCompute));
  } else {
    detail::copy_elements(from, to);
  }
}

void SelfCommunicator::do_all_reduce(const TensorView& /*values*/, ReduceOp /*op*/) {}

void SelfCommunicator::do_broadcast(const TensorView& /*values*/, int /*root*/) {}

void SelfCommunicator::do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root,
                                  int /*root*/) {
  copy(mine, parts_on_root[0]);
}

void SelfCommunicator::do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine,
                                   int /*root*/) {
  copy(parts_on_root[0], mine);
}

void SelfCommunicator::do_send(const TensorView& values, int peer, int /*tag*/) {
  CARAVAN_CHECK(false, "send of {} to rank {} in a group of one", values.str(), peer);
}

void SelfCommunicator::do_receive(const TensorView& values, int peer, int /*tag*/) {
  CARAVAN_CHECK(false, "receive of {} from rank {} in a group of one", values.str(), peer);
}

void SelfCommunicator::do_send_receive(const TensorView& outgoing, int /*to*/, const TensorView& incoming,
                                       int /*from*/) {
  copy(outgoing, incoming);
}

void SelfCommunicator::do_barrier() {}

Pending SelfCommunicator::do_start_all_reduce(const TensorView& /*values*/, ReduceOp /*op*/) {
  return {};
}

Pending SelfCommunicator::do_start_all_gather(const TensorView& mine, const TensorView& gathered) {
  copy(mine, gathered);
  return {};
}

Pending SelfCommunicator::do_start_reduce_scatter(const TensorView& values, const TensorView& mine) {
  copy(values, mine);
  return {};
}

Pending SelfCommunicator::do_start_send(const TensorView& values, int peer, int tag) {
  do_send(values, peer, tag);
  return {};
}

Pending SelfCommunicator::do_start_receive(const TensorView& values, int peer, int tag) {
  do_receive(values, peer, tag);
  return {};
}

}  // namespace caravan

#include "caravan/comm/self_communicator.h"

#include "caravan/core/error.h"
#include "copy.h"

namespace caravan {

std::unique_ptr<Communicator> SelfCommunicator::split(int color, int key) {
  CARAVAN_CHECK(color >= 0, "split with colour {}, key {}", color, key);
  return std::make_unique<SelfCommunicator>();
}

void SelfCommunicator::do_all_reduce(const TensorView& /*values*/, ReduceOp /*op*/) {}

void SelfCommunicator::do_broadcast(const TensorView& /*values*/, int /*root*/) {}

void SelfCommunicator::do_gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root,
                                  int /*root*/) {
  detail::copy_elements(mine, parts_on_root[0]);
}

void SelfCommunicator::do_scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine,
                                   int /*root*/) {
  detail::copy_elements(parts_on_root[0], mine);
}

void SelfCommunicator::do_send(const TensorView& values, int peer, int /*tag*/) {
  CARAVAN_CHECK(false, "send of {} to rank {} in a group of one", values.str(), peer);
}

void SelfCommunicator::do_receive(const TensorView& values, int peer, int /*tag*/) {
  CARAVAN_CHECK(false, "receive of {} from rank {} in a group of one", values.str(), peer);
}

void SelfCommunicator::do_send_receive(const TensorView& outgoing, int /*to*/, const TensorView& incoming,
                                       int /*from*/) {
  detail::copy_elements(outgoing, incoming);
}

void SelfCommunicator::do_barrier() {}

Pending SelfCommunicator::do_start_all_reduce(const TensorView& /*values*/, ReduceOp /*op*/) {
  return {};
}

Pending SelfCommunicator::do_start_all_gather(const TensorView& mine, const TensorView& gathered) {
  detail::copy_elements(mine, gathered);
  return {};
}

Pending SelfCommunicator::do_start_reduce_scatter(const TensorView& values, const TensorView& mine) {
  detail::copy_elements(values, mine);
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

// The part of Communicator that starts work: checks and traffic.
#include <cstdint>

#include "caravan/comm/communicator.h"
#include "caravan/core/error.h"
#include "overlap.h"

namespace caravan {

void Communicator::check_equal_parts(const char* function, const TensorView& whole,
                                     const TensorView& mine) const {
  check_view(function, whole);
  check_view(function, mine);
  CARAVAN_CHECK(whole.dtype() == mine.dtype() && whole.numel() == size() * mine.numel(),
                "{}: {} is not {} parts like {}", function, whole.str(), size(), mine.str());
  if (!detail::overlap(whole, mine)) {
    return;
  }
  const auto* own = static_cast<const char*>(whole.raw()) + rank() * mine.bytes();
  CARAVAN_CHECK(mine.raw() == own, "{}: {} overlaps {} and is not this rank's part of it", function,
                mine.str(), whole.str());
}

void Communicator::all_gather(const TensorView& mine, const TensorView& gathered) {
  start_all_gather(mine, gathered).wait();
}

void Communicator::reduce_scatter(const TensorView& values, const TensorView& mine) {
  start_reduce_scatter(values, mine).wait();
}

std::int64_t Communicator::reserve_reduce_scatter(std::int64_t part_bytes) {
  CARAVAN_CHECK(part_bytes >= 0, "reserve_reduce_scatter of {} bytes", part_bytes);
  do_reserve_reduce_scatter(part_bytes);
  return (size() - 1) * part_bytes;
}

Pending Communicator::start_all_reduce(const TensorView& values, ReduceOp op) {
  check_reducible("start_all_reduce", values);
  const std::int64_t moved = size() > 1 ? values.bytes() : 0;
  Pending pending = do_start_all_reduce(values, op);
  count(Collective::kAllReduce, moved, moved);
  return pending;
}

Pending Communicator::start_all_gather(const TensorView& mine, const TensorView& gathered) {
  check_equal_parts("all_gather", gathered, mine);
  const std::int64_t moved = mine.bytes() * (size() - 1);
  Pending pending = do_start_all_gather(mine, gathered);
  count(Collective::kAllGather, moved, moved);
  return pending;
}

Pending Communicator::start_reduce_scatter(const TensorView& values, const TensorView& mine) {
  check_reducible("reduce_scatter", values);
  check_equal_parts("reduce_scatter", values, mine);
  const std::int64_t moved = mine.bytes() * (size() - 1);
  Pending pending = do_start_reduce_scatter(values, mine);
  count(Collective::kReduceScatter, moved, moved);
  return pending;
}

Pending Communicator::start_send(const TensorView& values, int peer, int tag) {
  check_message("start_send", values, peer, tag);
  Pending pending = do_start_send(values, peer, tag);
  count(Collective::kPointToPoint, values.bytes(), 0);
  return pending;
}

Pending Communicator::start_receive(const TensorView& values, int peer, int tag) {
  check_message("start_receive", values, peer, tag);
  Pending pending = do_start_receive(values, peer, tag);
  count(Collective::kPointToPoint, 0, values.bytes());
  return pending;
}

}  // namespace caravan

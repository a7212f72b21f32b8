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
  CARAVAN_CHECK(whole.device() == mine.device(), "{}: {} and {} are not on one device", function, whole.str(),
                mine.str());
  if (!detail::overlap(whole, mine)) {
    return;
  }
  const auto* own = static_cast<const char*>(whole.raw()) + rank() * mine.bytes();
  CARAVAN_CHECK(mine.raw() == own, "{}: {} overlaps {} and is not this rank's part of it", function,
                mine.str(), whole.str());
}

/// The current operation, which is under way.
Pending Communicator::logged(Pending pending) {
  if (is_logged() && pending.is_open()) {
    OperationLog& log = OperationLog::of_this_rank();
    pending.observe(log, log.begin_started(current_));
  }
  return pending;
}

void Communicator::all_gather(const TensorView& mine, const TensorView& gathered, CallSite site) {
  start_all_gather(mine, gathered, site).wait();
}

void Communicator::reduce_scatter(const TensorView& values, const TensorView& mine, CallSite site) {
  start_reduce_scatter(values, mine, site).wait();
}

std::int64_t Communicator::reserve_reduce_scatter(std::int64_t part_bytes) {
  CARAVAN_CHECK(part_bytes >= 0, "reserve_reduce_scatter of {} bytes", part_bytes);
  do_reserve_reduce_scatter(part_bytes);
  return (size() - 1) * part_bytes;
}

Pending Communicator::start_all_reduce(const TensorView& values, ReduceOp op, CallSite site) {
  check_reducible("start_all_reduce", values);
  const std::int64_t moved = size() > 1 ? values.bytes() : 0;
  begin_operation("all_reduce", values.bytes(), site);
  Pending pending = logged(do_start_all_reduce(values, op));
  count(Collective::kAllReduce, moved, moved);
  return pending;
}

Pending Communicator::start_all_gather(const TensorView& mine, const TensorView& gathered, CallSite site) {
  check_equal_parts("all_gather", gathered, mine);
  const std::int64_t moved = mine.bytes() * (size() - 1);
  begin_operation("all_gather", gathered.bytes(), site);
  Pending pending = logged(do_start_all_gather(mine, gathered));
  count(Collective::kAllGather, moved, moved);
  return pending;
}

Pending Communicator::start_reduce_scatter(const TensorView& values, const TensorView& mine, CallSite site) {
  check_reducible("reduce_scatter", values);
  check_equal_parts("reduce_scatter", values, mine);
  const std::int64_t moved = mine.bytes() * (size() - 1);
  begin_operation("reduce_scatter", values.bytes(), site);
  Pending pending = logged(do_start_reduce_scatter(values, mine));
  count(Collective::kReduceScatter, moved, moved);
  return pending;
}

Pending Communicator::start_send(const TensorView& values, int peer, int tag, CallSite site) {
  check_message("start_send", values, peer, tag);
  begin_operation("send", values.bytes(), site);
  Pending pending = logged(do_start_send(values, peer, tag));
  count(Collective::kPointToPoint, values.bytes(), 0);
  return pending;
}

Pending Communicator::start_receive(const TensorView& values, int peer, int tag, CallSite site) {
  check_message("start_receive", values, peer, tag);
  begin_operation("receive", values.bytes(), site);
  Pending pending = logged(do_start_receive(values, peer, tag));
  count(Collective::kPointToPoint, 0, values.bytes());
  return pending;
}

}  // namespace caravan

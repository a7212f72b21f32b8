// The half of Communicator that is the same for every library: checks, traffic, and what is built from the
// basic collectives. What is started and waited on is in communicator_start.cpp.
#include "caravan/comm/communicator.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <utility>

#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "overlap.h"
#include "start_queue.h"

namespace caravan {
namespace {

using detail::overlap;

void check_disjoint(const char* function, std::span<const TensorView> parts) {
  std::vector<TensorView> sorted;
  std::copy_if(parts.begin(), parts.end(), std::back_inserter(sorted),
               [](const TensorView& part) { return part.numel() > 0; });
  std::sort(sorted.begin(), sorted.end(), [](const TensorView& a, const TensorView& b) {
    return std::less<>()(static_cast<char*>(a.raw()), static_cast<char*>(b.raw()));
  });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    CARAVAN_CHECK(!overlap(sorted[i - 1], sorted[i]), "{}: parts {} and {} overlap on the root", function,
                  sorted[i - 1].str(), sorted[i].str());
  }
}

std::int64_t bytes_of_others(std::span<const TensorView> parts, int own) {
  std::int64_t sum = 0;
  for (std::size_t r = 0; r < parts.size(); ++r) {
    sum += std::cmp_equal(r, own) ? 0 : parts[r].bytes();
  }
  return sum;
}

}  // namespace

void Communicator::check_view(const char* function, const TensorView& view) const {
  CARAVAN_CHECK(view.defined(), "{} of an undefined tensor", function);
  CARAVAN_CHECK(view.is_contiguous(), "{} of {}: not contiguous", function, view.str());
  if (view.device().kind == DeviceKind::kNone && accepts_shapes()) {
    return;
  }
  CARAVAN_CHECK(serves(view.device()), "{} of {}: not in host memory{}", function, view.str(),
                view.device().kind == DeviceKind::kCuda ? ", and the group serves no such device" : "");
  CARAVAN_CHECK(view.numel() == 0 || view.raw() != nullptr, "{} of {}: no memory", function, view.str());
}

void Communicator::check_reducible(const char* function, const TensorView& values) const {
  check_view(function, values);
  const DType dtype = values.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64 && dtype != DType::kInt64 &&
      dtype != DType::kBFloat16 && dtype != DType::kFloat16) {
    fail<CommError>(
        "{} of {}: only float32, float64, int64, bfloat16 and float16 can be reduced; convert to one of them "
        "first",
        function, values.str());
  }
}

std::unique_ptr<Communicator> Communicator::alone() const {
  return std::make_unique<SelfCommunicator>();
}

void Communicator::check_message(const char* function, const TensorView& values, int peer, int tag) const {
  check_view(function, values);
  check_rank(function, peer);
  CARAVAN_CHECK(peer != rank(), "{} on rank {} with itself", function, peer);
  CARAVAN_CHECK(tag >= 0 && tag <= kMaxTag, "{} with tag {}", function, tag);
}

void Communicator::check_rank(const char* function, int rank_given) const {
  CARAVAN_CHECK(rank_given >= 0 && rank_given < size(), "{}: rank {} in a group of {}", function, rank_given,
                size());
}

void Communicator::check_parts(const char* function, std::span<const TensorView> parts,
                               const TensorView& mine) const {
  CARAVAN_CHECK(std::cmp_equal(parts.size(), size()), "{}: {} parts for {} ranks", function, parts.size(),
                size());
  for (const TensorView& part : parts) {
    check_view(function, part);
    CARAVAN_CHECK(part.dtype() == mine.dtype(), "{}: part {} beside {}", function, part.str(), mine.str());
  }
  const TensorView& own = parts[static_cast<std::size_t>(rank())];
  CARAVAN_CHECK(own.numel() == mine.numel(), "{}: the root's own part is {}, it hands in {}", function,
                own.str(), mine.str());
}

const CommOperation& Communicator::begin_operation(std::string_view what, std::int64_t bytes, CallSite site) {
  current_ = {
      .what = what, .rank = rank(), .size = size(), .number = ++operations_, .bytes = bytes, .site = site};
  name_.copy(current_.group.data(), current_.group.size() - 1);
  return current_;
}

/// A blocking operation in the log; one that throws stays there as not ended.
class Communicator::Call {
 public:
  Call(Communicator& group, std::string_view what, std::int64_t bytes, CallSite site) {
    detail::StartQueue::of_this_rank().flush();
    if (group.is_logged()) {
      ticket_ = OperationLog::of_this_rank().begin_blocking(group.begin_operation(what, bytes, site));
    }
  }
  ~Call() {
    if (ticket_ != 0 && std::uncaught_exceptions() == exceptions_before_) {
      OperationLog::of_this_rank().end(ticket_);
    }
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  Call(Call&&) = delete;
  Call& operator=(Call&&) = delete;

 private:
  OperationLog::Ticket ticket_ = 0;
  int exceptions_before_ = std::uncaught_exceptions();
};

void Communicator::noted(std::string_view what, const std::function<void()>& work, CallSite site) {
  const Call call(*this, what, 0, site);
  work();
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, CallSite site) {
  CARAVAN_CHECK(color >= 0, "split with colour {}, key {}", color, key);
  const Call call(*this, "split", 0, site);
  return do_split(color, key);
}

void Communicator::count(Collective collective, std::int64_t sent_bytes, std::int64_t received_bytes) {
  TrafficCounter& counter = traffic_[collective];
  ++counter.calls;
  counter.sent_bytes += sent_bytes;
  counter.received_bytes += received_bytes;
}

void Communicator::all_reduce(const TensorView& values, ReduceOp op, CallSite site) {
  check_reducible("all_reduce", values);
  const std::int64_t moved = size() > 1 ? values.bytes() : 0;
  const Call call(*this, "all_reduce", values.bytes(), site);
  do_all_reduce(values, op);
  count(Collective::kAllReduce, moved, moved);
}

void Communicator::broadcast(const TensorView& values, int root, CallSite site) {
  check_view("broadcast", values);
  check_rank("broadcast", root);
  const Call call(*this, "broadcast", values.bytes(), site);
  do_broadcast(values, root);
  const bool is_root = rank() == root;
  count(Collective::kBroadcast, is_root ? values.bytes() * (size() - 1) : 0, is_root ? 0 : values.bytes());
}

void Communicator::gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root, int root,
                           CallSite site) {
  check_view("gatherv", mine);
  check_rank("gatherv", root);
  const bool is_root = rank() == root;
  if (is_root) {
    check_parts("gatherv", parts_on_root, mine);
    check_disjoint("gatherv", parts_on_root);
  }
  const Call call(*this, "gatherv", mine.bytes(), site);
  do_gatherv(mine, parts_on_root, root);
  count(Collective::kGatherv, is_root ? 0 : mine.bytes(), is_root ? bytes_of_others(parts_on_root, root) : 0);
}

void Communicator::scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine, int root,
                            CallSite site) {
  check_view("scatterv", mine);
  check_rank("scatterv", root);
  const bool is_root = rank() == root;
  if (is_root) {
    check_parts("scatterv", parts_on_root, mine);
  }
  const Call call(*this, "scatterv", mine.bytes(), site);
  do_scatterv(parts_on_root, mine, root);
  count(Collective::kScatterv, is_root ? bytes_of_others(parts_on_root, root) : 0,
        is_root ? 0 : mine.bytes());
}

void Communicator::send(const TensorView& values, int peer, int tag, CallSite site) {
  check_message("send", values, peer, tag);
  const Call call(*this, "send", values.bytes(), site);
  do_send(values, peer, tag);
  count(Collective::kPointToPoint, values.bytes(), 0);
}

void Communicator::receive(const TensorView& values, int peer, int tag, CallSite site) {
  check_message("receive", values, peer, tag);
  const Call call(*this, "receive", values.bytes(), site);
  do_receive(values, peer, tag);
  count(Collective::kPointToPoint, 0, values.bytes());
}

void Communicator::send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from,
                                CallSite site) {
  check_view("send_receive", outgoing);
  check_view("send_receive", incoming);
  check_rank("send_receive", to);
  check_rank("send_receive", from);
  const bool to_itself = to == rank();
  CARAVAN_CHECK(to_itself == (from == rank()), "send_receive on rank {}: to {}, from {}", rank(), to, from);
  CARAVAN_CHECK(outgoing.device() == incoming.device(), "send_receive: {} and {} are not on one device",
                outgoing.str(), incoming.str());
  CARAVAN_CHECK(!overlap(outgoing, incoming), "send_receive: {} and {} overlap", outgoing.str(),
                incoming.str());
  CARAVAN_CHECK(!to_itself || (outgoing.dtype() == incoming.dtype() && outgoing.numel() == incoming.numel()),
                "send_receive to itself: {} into {}", outgoing.str(), incoming.str());
  const Call call(*this, "send_receive", outgoing.bytes(), site);
  do_send_receive(outgoing, to, incoming, from);
  count(Collective::kPointToPoint, to_itself ? 0 : outgoing.bytes(), to_itself ? 0 : incoming.bytes());
}

void Communicator::barrier(CallSite site) {
  const Call call(*this, "barrier", 0, site);
  do_barrier();
  count(Collective::kBarrier, 0, 0);
}

void Communicator::begin_replay(const Traffic& moved, CallSite site) {
  traffic_ += moved;
  if (is_logged()) {
    replay_ = OperationLog::of_this_rank().begin_started(
        begin_operation("recorded exchanges", moved.total().sent_bytes, site));
    do_begin_replay();
  }
}

void Communicator::end_replay() {
  if (replay_ != 0) {
    do_end_replay();
    OperationLog::of_this_rank().end(std::exchange(replay_, 0));
  }
}

void Communicator::broadcast_bytes(std::string& bytes, int root, CallSite site) {
  auto length = static_cast<std::int64_t>(bytes.size());
  broadcast(TensorView(&length, DType::kInt64, {1}), root, site);
  bytes.resize(static_cast<std::size_t>(length));
  broadcast(TensorView(bytes.data(), DType::kUInt8, {length}), root, site);
}

std::vector<std::string> Communicator::gather_bytes(const std::string& bytes, int root, CallSite site) {
  auto length = static_cast<std::int64_t>(bytes.size());
  std::vector<std::int64_t> lengths(rank() == root ? static_cast<std::size_t>(size()) : 0);
  std::vector<TensorView> parts;
  for (std::int64_t& one : lengths) {
    parts.emplace_back(&one, DType::kInt64, Shape{1});
  }
  gatherv(TensorView(&length, DType::kInt64, {1}), parts, root, site);

  std::int64_t total = 0;
  for (const std::int64_t one : lengths) {
    total += one;
  }
  std::string together(static_cast<std::size_t>(total), '\0');
  parts.clear();
  std::int64_t at = 0;
  for (const std::int64_t one : lengths) {
    parts.emplace_back(together.data() + at, DType::kUInt8, Shape{one});
    at += one;
  }
  // A view has no const: gatherv only reads `mine`.
  gatherv(TensorView(const_cast<char*>(bytes.data()), DType::kUInt8, {length}), parts, root, site);
  std::vector<std::string> result;
  for (const TensorView& part : parts) {
    result.emplace_back(static_cast<const char*>(part.raw()), static_cast<std::size_t>(part.numel()));
  }
  return result;
}

double Communicator::all_reduce_value(double value, ReduceOp op, CallSite site) {
  all_reduce(TensorView(&value, DType::kFloat64, {1}), op, site);
  return value;
}

std::int64_t Communicator::all_reduce_value(std::int64_t value, ReduceOp op, CallSite site) {
  all_reduce(TensorView(&value, DType::kInt64, {1}), op, site);
  return value;
}

}  // namespace caravan

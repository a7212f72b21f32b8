// The half of Communicator that is the same for every library: checks, traffic, and what is built from the
// basic collectives. What is started and waited on is in communicator_start.cpp.
#include "caravan/comm/communicator.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "caravan/core/error.h"
#include "overlap.h"

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
  CARAVAN_CHECK(view.device().kind == DeviceKind::kCpu, "{} of {}: not in host memory", function, view.str());
  CARAVAN_CHECK(view.numel() == 0 || view.raw() != nullptr, "{} of {}: no memory", function, view.str());
}

void Communicator::check_reducible(const char* function, const TensorView& values) const {
  check_view(function, values);
  const DType dtype = values.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64 && dtype != DType::kInt64) {
    fail<CommError>("{} of {}: only float32, float64 and int64 can be reduced; convert to float32 first",
                    function, values.str());
  }
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

void Communicator::count(Collective collective, std::int64_t sent_bytes, std::int64_t received_bytes) {
  TrafficCounter& counter = traffic_[collective];
  ++counter.calls;
  counter.sent_bytes += sent_bytes;
  counter.received_bytes += received_bytes;
}

void Communicator::all_reduce(const TensorView& values, ReduceOp op) {
  check_reducible("all_reduce", values);
  const std::int64_t moved = size() > 1 ? values.bytes() : 0;
  do_all_reduce(values, op);
  count(Collective::kAllReduce, moved, moved);
}

void Communicator::broadcast(const TensorView& values, int root) {
  check_view("broadcast", values);
  check_rank("broadcast", root);
  do_broadcast(values, root);
  const bool is_root = rank() == root;
  count(Collective::kBroadcast, is_root ? values.bytes() * (size() - 1) : 0, is_root ? 0 : values.bytes());
}

void Communicator::gatherv(const TensorView& mine, std::span<const TensorView> parts_on_root, int root) {
  check_view("gatherv", mine);
  check_rank("gatherv", root);
  const bool is_root = rank() == root;
  if (is_root) {
    check_parts("gatherv", parts_on_root, mine);
    check_disjoint("gatherv", parts_on_root);
  }
  do_gatherv(mine, parts_on_root, root);
  count(Collective::kGatherv, is_root ? 0 : mine.bytes(), is_root ? bytes_of_others(parts_on_root, root) : 0);
}

void Communicator::scatterv(std::span<const TensorView> parts_on_root, const TensorView& mine, int root) {
  check_view("scatterv", mine);
  check_rank("scatterv", root);
  const bool is_root = rank() == root;
  if (is_root) {
    check_parts("scatterv", parts_on_root, mine);
  }
  do_scatterv(parts_on_root, mine, root);
  count(Collective::kScatterv, is_root ? bytes_of_others(parts_on_root, root) : 0,
        is_root ? 0 : mine.bytes());
}

void Communicator::send(const TensorView& values, int peer, int tag) {
  check_message("send", values, peer, tag);
  do_send(values, peer, tag);
  count(Collective::kPointToPoint, values.bytes(), 0);
}

void Communicator::receive(const TensorView& values, int peer, int tag) {
  check_message("receive", values, peer, tag);
  do_receive(values, peer, tag);
  count(Collective::kPointToPoint, 0, values.bytes());
}

void Communicator::send_receive(const TensorView& outgoing, int to, const TensorView& incoming, int from) {
  check_view("send_receive", outgoing);
  check_view("send_receive", incoming);
  check_rank("send_receive", to);
  check_rank("send_receive", from);
  const bool to_itself = to == rank();
  CARAVAN_CHECK(to_itself == (from == rank()), "send_receive on rank {}: to {}, from {}", rank(), to, from);
  CARAVAN_CHECK(!overlap(outgoing, incoming), "send_receive: {} and {} overlap", outgoing.str(),
                incoming.str());
  CARAVAN_CHECK(!to_itself || (outgoing.dtype() == incoming.dtype() && outgoing.numel() == incoming.numel()),
                "send_receive to itself: {} into {}", outgoing.str(), incoming.str());
  do_send_receive(outgoing, to, incoming, from);
  count(Collective::kPointToPoint, to_itself ? 0 : outgoing.bytes(), to_itself ? 0 : incoming.bytes());
}

void Communicator::barrier() {
  do_barrier();
  count(Collective::kBarrier, 0, 0);
}

void Communicator::broadcast_bytes(std::string& bytes, int root) {
  auto length = static_cast<std::int64_t>(bytes.size());
  broadcast(TensorView(&length, DType::kInt64, {1}), root);
  bytes.resize(static_cast<std::size_t>(length));
  broadcast(TensorView(bytes.data(), DType::kUInt8, {length}), root);
}

std::vector<std::string> Communicator::gather_bytes(const std::string& bytes, int root) {
  auto length = static_cast<std::int64_t>(bytes.size());
  std::vector<std::int64_t> lengths(rank() == root ? static_cast<std::size_t>(size()) : 0);
  std::vector<TensorView> parts;
  for (std::int64_t& one : lengths) {
    parts.emplace_back(&one, DType::kInt64, Shape{1});
  }
  gatherv(TensorView(&length, DType::kInt64, {1}), parts, root);

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
  gatherv(TensorView(const_cast<char*>(bytes.data()), DType::kUInt8, {length}), parts, root);
  std::vector<std::string> result;
  for (const TensorView& part : parts) {
    result.emplace_back(static_cast<const char*>(part.raw()), static_cast<std::size_t>(part.numel()));
  }
  return result;
}

double Communicator::all_reduce_value(double value, ReduceOp op) {
  all_reduce(TensorView(&value, DType::kFloat64, {1}), op);
  return value;
}

std::int64_t Communicator::all_reduce_value(std::int64_t value, ReduceOp op) {
  all_reduce(TensorView(&value, DType::kInt64, {1}), op);
  return value;
}

}  // namespace caravan

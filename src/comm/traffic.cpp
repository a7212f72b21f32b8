#include "caravan/comm/traffic.h"

namespace caravan {

std::string_view collective_name(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "all_reduce";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kGatherv:
      return "gatherv";
    case Collective::kScatterv:
      return "scatterv";
    case Collective::kPointToPoint:
      return "point_to_point";
    case Collective::kBarrier:
      return "barrier";
    case Collective::kAllGather:
      return "all_gather";
    case Collective::kReduceScatter:
      return "reduce_scatter";
  }
  return "unknown";
}

TrafficCounter& TrafficCounter::operator+=(const TrafficCounter& other) {
  calls += other.calls;
  library_calls += other.library_calls;
  sent_bytes += other.sent_bytes;
  received_bytes += other.received_bytes;
  return *this;
}

TrafficCounter& TrafficCounter::operator-=(const TrafficCounter& other) {
  calls -= other.calls;
  library_calls -= other.library_calls;
  sent_bytes -= other.sent_bytes;
  received_bytes -= other.received_bytes;
  return *this;
}

Traffic& Traffic::operator+=(const Traffic& other) {
  for (std::size_t i = 0; i < kCollectiveCount; ++i) {
    counters.at(i) += other.counters.at(i);
  }
  return *this;
}

Traffic& Traffic::operator-=(const Traffic& other) {
  for (std::size_t i = 0; i < kCollectiveCount; ++i) {
    counters.at(i) -= other.counters.at(i);
  }
  return *this;
}

TrafficCounter Traffic::total() const {
  TrafficCounter sum;
  for (const TrafficCounter& counter : counters) {
    sum += counter;
  }
  return sum;
}

}  // namespace caravan

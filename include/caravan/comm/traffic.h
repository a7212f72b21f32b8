// What a communicator has moved: payload counted from the caller's point of view, whatever algorithm the
// library underneath chose. Summed over the ranks of a group, sent equals received.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caravan {

enum class Collective : std::uint8_t {
  kAllReduce,
  kBroadcast,
  kGatherv,
  kScatterv,
  kPointToPoint,  // send, receive, send_receive
  kBarrier,
  kAllGather,
  kReduceScatter,
};
inline constexpr std::size_t kCollectiveCount = 8;

/// "all_reduce", "gatherv", ...
std::string_view collective_name(Collective collective);

struct TrafficCounter {
  std::int64_t calls = 0;          // calls of the Communicator's functions on this rank
  std::int64_t library_calls = 0;  // calls that moved data in the library; more than one where chunked
  std::int64_t sent_bytes = 0;
  std::int64_t received_bytes = 0;

  TrafficCounter& operator+=(const TrafficCounter& other);
  TrafficCounter& operator-=(const TrafficCounter& other);
};

/// A reduction sends and receives the tensor once; a broadcast's root sends it once per other rank, and so
/// does every rank with its part of an all_gather; a reduce_scatter hands each other rank the part it sums;
/// what a rank hands to itself counts nothing. So an all_gather or reduce_scatter of a tensor of N bytes over
/// p ranks counts N (p − 1) / p, an all_reduce N, of which the best algorithm moves 2 N (p − 1) / p. Work
/// that was started counts when it starts.
struct Traffic {
  std::array<TrafficCounter, kCollectiveCount> counters{};

  TrafficCounter& operator[](Collective collective) {
    return counters.at(static_cast<std::size_t>(collective));
  }
  const TrafficCounter& operator[](Collective collective) const {
    return counters.at(static_cast<std::size_t>(collective));
  }
  TrafficCounter total() const;
  Traffic& operator+=(const Traffic& other);
  Traffic& operator-=(const Traffic& other);
};

}  // namespace caravan

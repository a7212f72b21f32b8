// Times and counts of one workload on some of the ranks, and what they say about more ranks than there are
// cores.
#pragma once

#include <cstdint>
#include <vector>

#include "bench_workload.h"

namespace caravan::app {

/// Nearest rank: the smallest value that at least `percent` % of `values` do not exceed. 0 < percent <= 100.
double percentile(std::vector<double> values, double percent);

/// Where a time comes from: every rank had a core of its own, or it was computed from counted bytes.
enum class Source : std::uint8_t { kMeasured, kModelled };

struct Measurement {
  Division division = Division::kTp;
  int ranks = 1;
  std::int64_t batch = 0;             // rows of a step over all ranks
  Source source = Source::kMeasured;  // of the times; bytes, calls and memory are always counted
  std::vector<double> seconds = {};   // of every step, on the slowest rank; modelled: one
  double update_seconds = 0.0;        // part of a step outside gradients()
  double waiting_share = 0.0;         // bench_workload.h
  // Of a step, on the rank with the most:
  std::int64_t calls = 0;
  std::int64_t sent_bytes = 0;   // as communicators count (comm/traffic.h)
  std::int64_t moved_bytes = 0;  // sent, an all_reduce as the best algorithm's 2 (p − 1) / p of its tensor
  std::int64_t memory_bytes = 0;

  double rows_per_second() const;
};

/// Runs `size` on the first `ranks` of `world` in groups of their own; the others sleep meanwhile. With
/// `steps` of 2 or more times are taken, else only counts. Collective over `world`; the result is whole on
/// rank 0.
Measurement measure(Communicator& world, int ranks, const WorkloadSize& size, Division division,
                    std::int64_t steps, Backend& backend);

/// A message's cost: what two ranks were seen to take for sums of few and of many bytes.
struct Link {
  double latency_seconds = 0.0;
  double bytes_per_second = 0.0;

  double seconds(const Measurement& counted) const {
    return latency_seconds * static_cast<double>(counted.calls) +
           static_cast<double>(counted.moved_bytes) / bytes_per_second;
  }
};
/// On the first two ranks, between calls of which the others sleep. Collective over `world`, which has two or
/// more.
Link measure_link(Communicator& world);

/// Sets the time of `counted` from one rank's: the work of gradients() divided among its ranks, with the
/// waiting that belongs to it, the update divided too where weights are, and its messages one after another,
/// none hidden behind work.
void model_time(Measurement& counted, const Measurement& one_rank, const Link& link);

}  // namespace caravan::app

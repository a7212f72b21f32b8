// Runs the lists of a pipeline on paper: when does every step begin and end, who waits, how much is alive.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/parallel/pipeline_schedule.h"

namespace caravan {

/// What one stage needs for one micro-batch, in any unit of time.
struct StageDurations {
  double forward = 1.0;
  double backward_input = 1.0;
  double backward_weight = 1.0;
};

struct SimulationOptions {
  std::vector<StageDurations> stages;  // one for all stages, or one per stage
  double message = 0.0;                // from the start of a message to its arrival
  /// Messages of one kind that may be on the way from one rank to another without the sender waiting for it;
  /// the next one waits until the oldest has arrived. With none, a send ends with its receive (rendezvous).
  std::int64_t send_buffers = kUnlimited;
  static constexpr std::int64_t kUnlimited = std::int64_t{1} << 62U;
};

struct PipelineTimeline {
  struct Interval {
    PipelineStep step;
    double begin = 0.0;
    double end = 0.0;
  };
  std::vector<std::vector<Interval>> ranks;  // the computations of each rank
  std::vector<std::int64_t> peak_in_flight;  // by rank: most (micro-batch, stage) pairs alive at once
  /// For each rank that cannot go on what it waits for; empty when all lists come to their end.
  std::vector<std::string> blocked;

  /// From the start to the last computation of any rank.
  double end() const;
  /// The part of all ranks' time up to end() in which they compute nothing.
  double bubble_fraction() const;
};

PipelineTimeline simulate(const PipelinePlan& plan, const SimulationOptions& options);

}  // namespace caravan

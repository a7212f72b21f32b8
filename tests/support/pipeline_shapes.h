// Every pipeline shape that the tests go through.
#pragma once

#include <vector>

#include "caravan/parallel/pipeline_schedule.h"

namespace caravan::test {

/// Up to 8 ranks, 4 stages per rank where the schedule has them, 16 micro-batches.
inline std::vector<PipelineShape> all_pipeline_shapes() {
  std::vector<PipelineShape> shapes;
  for (const auto& [name, schedule] : EnumNames<PipelineSchedule>::kNames) {
    const int most_chunks = schedule == PipelineSchedule::kInterleaved ? 4 : 1;
    for (int ranks = 1; ranks <= 8; ++ranks) {
      for (int chunks = 1; chunks <= most_chunks; ++chunks) {
        for (std::int64_t micro_batches = 1; micro_batches <= 16; ++micro_batches) {
          shapes.push_back({schedule, ranks, chunks, micro_batches});
        }
      }
    }
  }
  return shapes;
}

}  // namespace caravan::test

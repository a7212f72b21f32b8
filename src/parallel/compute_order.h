// The order of one rank's computations in each schedule, before messages are put around them.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/parallel/pipeline_schedule.h"

namespace caravan {

struct Computation {
  PipelineOp op = PipelineOp::kForward;
  int chunk = 0;
  std::int64_t micro_batch = 0;
};

std::vector<Computation> compute_order(const PipelineShape& shape, int rank);

}  // namespace caravan

// A simulated pipeline as a picture.
#pragma once

#include <string>

#include "caravan/parallel/pipeline_simulator.h"

namespace caravan {

/// One line per rank, one cell per unit of time: F3 is a forward of micro-batch 3, B3 a backward or its input
/// half, W3 the weight half; with several stages per rank the chunk follows as a letter (F3a). `-` goes on
/// with what stands before it, `.` waits. Durations must be whole numbers.
std::string trace_text(const PipelinePlan& plan, const PipelineTimeline& timeline);

/// The same as an SVG picture.
std::string trace_svg(const PipelinePlan& plan, const PipelineTimeline& timeline);

}  // namespace caravan

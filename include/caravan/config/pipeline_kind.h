// Names of the pipeline schedules; parallel/pipeline_schedule.h makes them.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "caravan/config/visit.h"

namespace caravan {

enum class PipelineSchedule : std::uint8_t {
  kGpipe,        // all forward, then all backward
  k1F1B,         // one forward, one backward
  kInterleaved,  // 1F1B over several stages per rank
  kZeroBubble,   // 1F1B with the weight products put off into the drain (ZB-H1)
};

template <>
struct EnumNames<PipelineSchedule> {
  static constexpr std::array kNames = {
      std::pair{std::string_view("gpipe"), PipelineSchedule::kGpipe},
      std::pair{std::string_view("1f1b"), PipelineSchedule::k1F1B},
      std::pair{std::string_view("interleaved"), PipelineSchedule::kInterleaved},
      std::pair{std::string_view("zero_bubble"), PipelineSchedule::kZeroBubble}};
};

}  // namespace caravan

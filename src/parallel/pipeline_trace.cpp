#include "caravan/parallel/pipeline_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace caravan {
namespace {

char letter(PipelineOp op) {
  return op == PipelineOp::kForward ? 'F' : op == PipelineOp::kBackwardWeight ? 'W' : 'B';
}

/// "F3", "F3a"
std::string label(const PipelineShape& shape, const PipelineStep& step) {
  std::string text = fmt::format("{}{}", letter(step.op), step.micro_batch);
  if (shape.chunks > 1) {
    text += static_cast<char>('a' + shape.chunk_of(step.stage));
  }
  return text;
}

std::size_t units(double time) {
  return static_cast<std::size_t>(std::llround(time));
}

/// Light for the first chunk, darker for the next ones; black text is readable on all.
std::string colour(const PipelineShape& shape, const PipelineStep& step) {
  const int chunk = shape.chunk_of(step.stage);
  const int shade = 22 * chunk / std::max(1, shape.chunks - 1);
  const int hue = step.op == PipelineOp::kForward ? 210 : step.op == PipelineOp::kBackwardWeight ? 45 : 130;
  return fmt::format("hsl({}, 60%, {}%)", hue, 80 - shade);
}

}  // namespace

std::string trace_text(const PipelinePlan& plan, const PipelineTimeline& timeline) {
  std::size_t width = 0;
  for (const auto& rank : timeline.ranks) {
    for (const auto& interval : rank) {
      width = std::max(width, label(plan.shape, interval.step).size());
    }
  }
  std::string text;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    std::string line = fmt::format("rank {}  ", rank);
    std::size_t now = 0;
    const auto wait_until = [&](std::size_t time) {
      for (; now < time; ++now) {
        line += fmt::format("{:<{}}", ".", width);
      }
    };
    for (const auto& interval : timeline.ranks[rank]) {
      wait_until(units(interval.begin));
      line += fmt::format("{:<{}}", label(plan.shape, interval.step), width);
      for (++now; now < units(interval.end); ++now) {
        line += fmt::format("{:<{}}", "-", width);
      }
    }
    wait_until(units(timeline.end()));
    text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

std::string trace_svg(const PipelinePlan& plan, const PipelineTimeline& timeline) {
  constexpr int kUnit = 40;  // pixels of one unit of time
  constexpr int kRow = 24;   // of one rank
  constexpr int kLeft = 52;  // of the ranks' names
  const double width = kLeft + timeline.end() * kUnit + 4;
  const std::size_t height = timeline.ranks.size() * kRow + 4;
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1}\" viewBox=\"0 0 {0:.0f} "
      "{1}\" "
      "font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"{0:.0f}\" height=\"{1}\" "
      "fill=\"white\"/>\n",
      width, height);
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    const std::size_t top = 2 + rank * kRow;
    text += fmt::format("<text x=\"4\" y=\"{}\" font-size=\"12\">rank {}</text>\n", top + 16, rank);
    for (const auto& interval : timeline.ranks[rank]) {
      const double x = kLeft + interval.begin * kUnit;
      const double w = (interval.end - interval.begin) * kUnit;
      text += fmt::format(
          "<rect x=\"{:g}\" y=\"{}\" width=\"{:g}\" height=\"{}\" fill=\"{}\" stroke=\"#555\"/>"
          "<text x=\"{:g}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
          x, top, w, kRow - 4, colour(plan.shape, interval.step), x + w / 2, top + 14,
          label(plan.shape, interval.step));
    }
  }
  return text + "</svg>\n";
}

}  // namespace caravan

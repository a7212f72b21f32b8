// The traces and pictures of docs/notes/pipeline.md are what the simulator gives. With CARAVAN_UPDATE_DOCS=1
// they are written instead of compared.
#include "caravan/parallel/pipeline_trace.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "support/documents.h"

using namespace caravan;
using namespace caravan::test;

namespace {

struct Simulated {
  PipelinePlan plan;
  PipelineTimeline timeline;
};

Simulated simulated(const PipelineShape& shape, double unit) {
  PipelinePlan plan = make_pipeline(shape);
  PipelineTimeline timeline = simulate(plan, {.stages = {{unit, unit, unit}}});
  return {std::move(plan), std::move(timeline)};
}

PipelineShape shape_of(PipelineSchedule schedule, std::int64_t micro_batches) {
  return {schedule, 4, schedule == PipelineSchedule::kInterleaved ? 2 : 1, micro_batches};
}

std::string costs() {
  std::string table =
      "| | length | waiting per rank | part of the time | alive on ranks 0 to 3 |\n|---|---|---|---|---|\n";
  for (const auto& [name, schedule] : EnumNames<PipelineSchedule>::kNames) {
    const PipelineShape shape = shape_of(schedule, 8);
    const auto [plan, timeline] = simulated(shape, 1.0 / shape.chunks);
    std::string alive;
    for (const std::int64_t count : timeline.peak_in_flight) {
      alive += fmt::format("{}{}", alive.empty() ? "" : ", ", count);
    }
    table += fmt::format("| {} | {:g} | {:g} | {:.1f} % | {}{} |\n", name, timeline.end(),
                         timeline.end() * timeline.bubble_fraction(), 100.0 * timeline.bubble_fraction(),
                         alive, shape.chunks > 1 ? " half stages" : "");
  }
  return table;
}

}  // namespace

TEST_CASE("a trace shows who works when", "[parallel][pipeline]") {
  const auto [plan, timeline] = simulated({PipelineSchedule::k1F1B, 2, 1, 3}, 1.0);
  CHECK(trace_text(plan, timeline) ==
        "rank 0  F0F1. . B0- F2B1- . B2-\n"
        "rank 1  . F0B0- F1B1- F2B2- . .\n");
}

TEST_CASE("labels of any width keep the columns", "[parallel][pipeline]") {
  const auto [plan, timeline] = simulated({PipelineSchedule::kInterleaved, 1, 2, 11}, 1.0);
  const std::string text = trace_text(plan, timeline);
  CHECK(text.find("F0a F0b B0b -   ") != std::string::npos);
  CHECK(text.find("F10aB9a -   F10bB10b-   B10a-") != std::string::npos);
}

TEST_CASE("docs/notes/pipeline.md shows the traces and costs that the simulator gives",
          "[parallel][pipeline]") {
  const std::filesystem::path path = docs_folder() / "notes" / "pipeline.md";
  std::string text = read_file(path);
  for (const auto& [name, schedule] : EnumNames<PipelineSchedule>::kNames) {
    const auto [plan, timeline] =
        simulated(shape_of(schedule, schedule == PipelineSchedule::kInterleaved ? 4 : 8), 1.0);
    text = replaced(text, std::string(name), "```\n" + trace_text(plan, timeline) + "```\n");
  }
  check_file(path, replaced(text, "costs", costs()));
}

TEST_CASE("the pictures are those of the code", "[parallel][pipeline]") {
  for (const auto& [name, schedule] : EnumNames<PipelineSchedule>::kNames) {
    const PipelineShape shape = shape_of(schedule, 8);
    const auto [plan, timeline] = simulated(shape, 1.0 / shape.chunks);
    check_file(docs_folder() / fmt::format("pipeline-{}.svg", name), trace_svg(plan, timeline));
  }
}

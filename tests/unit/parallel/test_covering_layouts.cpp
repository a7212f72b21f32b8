// The list of layouts that the claims about meshes are tested on (tests/support/covering_layouts.h).
#include "support/covering_layouts.h"

#include <catch2/catch.hpp>
#include <set>
#include <tuple>

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::size_t kZeroStage = 1;
constexpr std::size_t kReshard = 2;
constexpr std::size_t kPipeline = 9;
constexpr std::size_t kSchedule = 10;

bool is_possible(std::size_t first, int value, std::size_t second, int other) {
  if (first == kZeroStage && second == kReshard) {
    return value == 3 || other == 1;  // weights that are not divided, or not in stage 3, are never gathered
  }
  if (first == kPipeline && second == kSchedule) {
    return (value == 0) == (other == 0);  // one stage has no schedule, several always have one
  }
  return true;
}

}  // namespace

TEST_CASE("every pair of choices occurs in some layout", "[parallel][layout]") {
  const auto layouts = covering_layouts();
  CHECK(layouts.size() >= 24);
  std::set<std::tuple<std::size_t, int, std::size_t, int>> seen;
  for (const CoveringLayout& layout : layouts) {
    const auto choices = layout.choices();
    for (std::size_t i = 0; i < choices.size(); ++i) {
      for (std::size_t k = i + 1; k < choices.size(); ++k) {
        seen.insert({i, choices.at(i), k, choices.at(k)});
      }
    }
  }
  for (std::size_t i = 0; i < CoveringLayout::kChoices.size(); ++i) {
    for (std::size_t k = i + 1; k < CoveringLayout::kChoices.size(); ++k) {
      for (int a = 0; a < CoveringLayout::kChoices.at(i); ++a) {
        for (int b = 0; b < CoveringLayout::kChoices.at(k); ++b) {
          CAPTURE(i, a, k, b);
          CHECK(seen.contains({i, a, k, b}) == is_possible(i, a, k, b));
        }
      }
    }
  }
}

TEST_CASE("layouts have names of their own and at most 8 ranks", "[parallel][layout]") {
  std::set<std::string> names;
  std::set<int> sizes;
  for (const CoveringLayout& layout : covering_layouts()) {
    CAPTURE(layout.name());
    CHECK(names.insert(layout.name()).second);
    CHECK(layout.parallel.dp_replicate * layout.parallel.dp_shard <= 4);
    CHECK((layout.parallel.stages_per_rank > 1) ==
          (layout.parallel.pp > 1 && layout.parallel.pipeline_schedule == PipelineSchedule::kInterleaved));
    sizes.insert(layout.ranks());
  }
  CHECK(sizes == std::set<int>{1, 2, 4, 8});
}

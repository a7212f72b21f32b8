#include "box_tiling.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <queue>
#include <utility>
#include <vector>

namespace caravan {
namespace {

constexpr std::size_t kMaxPairwise = 4096;

Range dim_range(const Region& box, std::size_t dim) {
  return dim < box.size() ? box[dim] : Range{0, 1};
}

std::string overlap_text(const Region& a, const Region& b) {
  return fmt::format("{} and {} overlap", region_text(a), region_text(b));
}

/// A line moves along dim 0; the boxes it cuts must be disjoint along dim 1.
std::string sweep(std::span<const Region* const> boxes) {
  std::vector<const Region*> by_begin(boxes.begin(), boxes.end());
  std::sort(by_begin.begin(), by_begin.end(),
            [](const Region* a, const Region* b) { return dim_range(*a, 0).begin < dim_range(*b, 0).begin; });
  std::map<std::int64_t, const Region*> cut;  // by begin along dim 1
  using End = std::pair<std::int64_t, std::int64_t>;
  std::priority_queue<End, std::vector<End>, std::greater<>> ends;  // along dim 0, with the key in `cut`
  for (const Region* box : by_begin) {
    const Range along = dim_range(*box, 0);
    const Range across = dim_range(*box, 1);
    for (; !ends.empty() && ends.top().first <= along.begin; ends.pop()) {
      cut.erase(ends.top().second);
    }
    const auto next = cut.lower_bound(across.begin);
    if (next != cut.end() && dim_range(*next->second, 1).begin < across.end) {
      return overlap_text(*next->second, *box);
    }
    if (next != cut.begin() && dim_range(*std::prev(next)->second, 1).end > across.begin) {
      return overlap_text(*std::prev(next)->second, *box);
    }
    cut.emplace_hint(next, across.begin, box);
    ends.emplace(along.end, across.begin);
  }
  return {};
}

std::string compare_pairs(std::span<const Region* const> boxes) {
  if (boxes.size() > kMaxPairwise) {
    return fmt::format("{} pieces of a tensor of more than two dims; at most {} are handled", boxes.size(),
                       kMaxPairwise);
  }
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const auto meet = [](const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end; };
      if (std::equal(boxes[i]->begin(), boxes[i]->end(), boxes[j]->begin(), meet)) {
        return overlap_text(*boxes[j], *boxes[i]);
      }
    }
  }
  return {};
}

}  // namespace

std::string region_text(const Region& region) {
  std::string text = "[";
  for (const Range& range : region) {
    text += fmt::format("{}{}:{}", text.size() > 1 ? ", " : "", range.begin, range.end);
  }
  return text + "]";
}

std::string tiling_problem(const Shape& shape, std::span<const Region* const> boxes) {
  std::string problem = shape.rank() <= 2 ? sweep(boxes) : compare_pairs(boxes);
  if (!problem.empty()) {
    return problem;
  }
  std::int64_t covered = 0;  // disjoint and inside: no more than the tensor has
  for (const Region* box : boxes) {
    covered += region_shape(*box).numel();
  }
  const std::int64_t wanted = shape.numel();
  return covered == wanted ? "" : fmt::format("only {} of {} elements are there", covered, wanted);
}

}  // namespace caravan

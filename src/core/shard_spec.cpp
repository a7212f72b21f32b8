#include "caravan/core/shard_spec.h"

#include <algorithm>

#include "caravan/core/error.h"

namespace caravan {

std::int64_t Coordinates::index(const std::string& axis) const {
  const auto at = std::find_if(axes_.begin(), axes_.end(), [&](const auto& c) { return c.axis == axis; });
  return at == axes_.end() ? 0 : at->index;
}

std::int64_t Coordinates::count(const std::string& axis) const {
  const auto at = std::find_if(axes_.begin(), axes_.end(), [&](const auto& c) { return c.axis == axis; });
  return at == axes_.end() ? 1 : at->count;
}

bool ShardSpec::is_split(const std::string& axis) const {
  return std::any_of(cuts.begin(), cuts.end(), [&](const Cut& cut) { return cut.axis == axis; });
}

Region ShardSpec::resolve(const Shape& global, const Coordinates& at) const {
  Region region = full_region(global);
  for (const Cut& cut : cuts) {
    Range& range = region.at(static_cast<std::size_t>(cut.dim));
    CARAVAN_CHECK(cut.unit > 0 && range.size() % cut.unit == 0,
                  "cut of {} over {}: not a multiple of unit {}", range.size(), cut.axis, cut.unit);
    const std::int64_t units = range.size() / cut.unit;
    const std::int64_t count = at.count(cut.axis);
    const std::int64_t index = at.index(cut.axis);
    CARAVAN_CHECK(index >= 0 && index < count, "coordinate {} of {} on axis {}", index, count, cut.axis);
    const std::int64_t base = units / count;
    const std::int64_t extra = units % count;
    const std::int64_t first = index * base + std::min(index, extra);
    const std::int64_t mine = base + (index < extra ? 1 : 0);
    range = {range.begin + first * cut.unit, range.begin + (first + mine) * cut.unit};
  }
  return region;
}

Shape region_shape(const Region& region) {
  Shape shape;
  for (const Range& range : region) {
    shape.append(range.size());
  }
  return shape;
}

Region full_region(const Shape& shape) {
  Region region;
  for (int dim = 0; dim < shape.rank(); ++dim) {
    region.push_back({0, shape[dim]});
  }
  return region;
}

}  // namespace caravan

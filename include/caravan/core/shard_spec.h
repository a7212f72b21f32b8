// How a global tensor is cut over named axes: pure data, resolved against plain coordinates.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/core/shape.h"

namespace caravan {

/// This rank's place on one axis: "slot" in federated training, "tp", "dp_shard", ... on a mesh.
struct AxisCoordinate {
  std::string axis;
  std::int64_t index = 0;
  std::int64_t count = 1;
};

/// All axes of one rank. An axis that is not listed has one member.
class Coordinates {
 public:
  Coordinates() = default;
  explicit Coordinates(std::vector<AxisCoordinate> axes) : axes_(std::move(axes)) {}
  std::int64_t index(const std::string& axis) const;
  std::int64_t count(const std::string& axis) const;

 private:
  std::vector<AxisCoordinate> axes_;
};

/// Half-open range of global indices.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

/// The part of a tensor one rank holds: one range per dim.
using Region = std::vector<Range>;

/// One cut: `dim` of what is left after the cuts before it is divided over `axis` in whole multiples of
/// `unit` elements (a head's rows are one unit). Uneven cuts give the first members one unit more.
struct Cut {
  std::string axis;
  int dim = 0;
  std::int64_t unit = 1;
};

/// An ordered list of cuts (outer first). No cuts: replicated. `partial_axes` are the axes over which a
/// gradient of this tensor is a partial sum.
struct ShardSpec {
  std::vector<Cut> cuts;
  std::vector<std::string> partial_axes;

  bool is_split(const std::string& axis) const;
  /// Global index ranges of this rank. Throws InternalError when a dim is not a multiple of its unit.
  Region resolve(const Shape& global, const Coordinates& at) const;
};

/// Sizes of a region as a shape.
Shape region_shape(const Region& region);
/// The whole tensor.
Region full_region(const Shape& shape);

}  // namespace caravan

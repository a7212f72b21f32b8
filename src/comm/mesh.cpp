#include "caravan/comm/mesh.h"

#include <string>
#include <utility>
#include <vector>

#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::array<MeshAxis, kMeshAxisCount> kOutermostFirst = {
    MeshAxis::kPp, MeshAxis::kDpReplicate, MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp};

void check_sizes(const MeshSizes& sizes, int world_size) {
  std::int64_t product = 1;
  std::string listed;
  for (const MeshAxis axis : kOutermostFirst) {
    listed += fmt::format("{}{} {}", listed.empty() ? "" : ", ", mesh_axis_name(axis), sizes[axis]);
    if (sizes[axis] < 1) {
      fail<ConfigError>("mesh: axis {} has size {}; every axis has at least 1", mesh_axis_name(axis),
                        sizes[axis]);
    }
    // An axis beyond the world is wrong already, and stopping there keeps the product from overflowing.
    product = product > world_size ? product : product * sizes[axis];
  }
  if (product != world_size) {
    fail<ConfigError>("mesh: {} does not make {} ranks; the product of the axes must be the number of ranks",
                      listed, world_size);
  }
}

}  // namespace

std::string_view mesh_axis_name(MeshAxis axis) {
  switch (axis) {
    case MeshAxis::kPp:
      return "pp";
    case MeshAxis::kDpReplicate:
      return "dp_replicate";
    case MeshAxis::kDpShard:
      return "dp_shard";
    case MeshAxis::kCp:
      return "cp";
    case MeshAxis::kTp:
      return "tp";
  }
  return "unknown";
}

int MeshSizes::operator[](MeshAxis axis) const {
  switch (axis) {
    case MeshAxis::kPp:
      return pp;
    case MeshAxis::kDpReplicate:
      return dp_replicate;
    case MeshAxis::kDpShard:
      return dp_shard;
    case MeshAxis::kCp:
      return cp;
    case MeshAxis::kTp:
      return tp;
  }
  fail<InternalError>("no mesh axis {}", static_cast<int>(axis));
}

Mesh::Mesh(Communicator& world, const MeshSizes& sizes) : sizes_(sizes) {
  check_sizes(sizes, world.size());
  int stride = 1;  // ranks to step for one step on the axis
  for (std::size_t i = kMeshAxisCount; i-- > 0;) {
    const int count = sizes[kOutermostFirst[i]];
    const int coordinate = world.rank() / stride % count;
    coordinates_[i] = coordinate;
    if (count == 1) {
      groups_[i] = std::make_unique<SelfCommunicator>();
    } else {
      // The members of a group differ on this axis only: its colour is their rank with this coordinate 0.
      groups_[i] = world.split(world.rank() - coordinate * stride, coordinate);
    }
    stride *= count;
  }
}

Coordinates Mesh::coordinates() const {
  std::vector<AxisCoordinate> axes;
  for (const MeshAxis axis : kOutermostFirst) {
    axes.push_back({std::string(mesh_axis_name(axis)), coordinate(axis), size(axis)});
  }
  return Coordinates(std::move(axes));
}

}  // namespace caravan

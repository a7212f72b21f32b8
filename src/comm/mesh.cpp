#include "caravan/comm/mesh.h"

#include <string>
#include <utility>
#include <vector>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::array<MeshAxis, kMeshAxisCount> kOutermostFirst = {
    MeshAxis::kDpReplicate, MeshAxis::kPp, MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp};

/// Ranks to step for one step on the axis.
int stride(const MeshSizes& sizes, MeshAxis axis) {
  int ranks = 1;
  for (std::size_t i = kMeshAxisCount; kOutermostFirst.at(--i) != axis;) {
    ranks *= sizes[kOutermostFirst.at(i)];
  }
  return ranks;
}

/// What a step waits for at once (tp, cp), stage after stage (pp), or may take its time for (weights and
/// gradients).
StreamId stream_of(std::span<const MeshAxis> axes) {
  const bool is_single = axes.size() == 1;
  return is_single && axes[0] == MeshAxis::kPp                                 ? StreamId::kPipelineComm
         : is_single && (axes[0] == MeshAxis::kTp || axes[0] == MeshAxis::kCp) ? StreamId::kTensorComm
                                                                               : StreamId::kParamComm;
}

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

int MeshSizes::coordinate(MeshAxis axis, int rank) const {
  return rank / stride(*this, axis) % (*this)[axis];
}

int MeshSizes::first_rank(MeshAxis axis, int coordinate) const {
  return coordinate * stride(*this, axis);
}

Mesh::Mesh(Communicator& world, const MeshSizes& sizes) : sizes_(sizes) {
  check_sizes(sizes, world.size());
  for (std::size_t i = 0; i < kMeshAxisCount; ++i) {
    const MeshAxis axis = kOutermostFirst.at(i);
    coordinates_.at(i) = sizes.coordinate(axis, world.rank());
    groups_.at(i) = group(world, {&axis, 1});
  }
}

std::unique_ptr<Communicator> Mesh::group(Communicator& world, std::span<const MeshAxis> axes) const {
  int count = 1;
  int colour = world.rank();  // the rank of the member whose coordinates on these axes are 0
  for (const MeshAxis axis : axes) {
    count *= sizes_[axis];
    colour -= sizes_.coordinate(axis, world.rank()) * stride(sizes_, axis);
  }
  if (count == 1) {
    return world.alone();
  }
  auto members = world.split(colour, world.rank());
  std::string name;
  for (const MeshAxis axis : axes) {
    if (sizes_[axis] > 1) {
      name += (name.empty() ? "" : " x ") + std::string(mesh_axis_name(axis));
    }
  }
  members->set_name(std::move(name));
  members->set_stream(stream_of(axes));
  return members;
}

Coordinates Mesh::coordinates() const {
  std::vector<AxisCoordinate> axes;
  for (const MeshAxis axis : kOutermostFirst) {
    axes.push_back({std::string(mesh_axis_name(axis)), coordinate(axis), size(axis)});
  }
  return Coordinates(std::move(axes));
}

}  // namespace caravan

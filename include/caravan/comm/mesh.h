// Named axes over the ranks of a job, one Communicator per axis. Rank order, outermost first: dp_replicate,
// pp, dp_shard, cp, tp; so tp groups are neighbouring ranks, which launchers put on one machine, and a copy
// of the model is a row of neighbours that talks to the other copies once a step.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "caravan/comm/communicator.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

enum class MeshAxis : std::uint8_t { kDpReplicate, kPp, kDpShard, kCp, kTp };  // outermost first
inline constexpr std::size_t kMeshAxisCount = 5;

/// "tp", "dp_shard", ...: the names ShardSpec uses.
std::string_view mesh_axis_name(MeshAxis axis);

/// Members per axis; the product is the number of ranks.
struct MeshSizes {
  int dp_replicate = 1;
  int dp_shard = 1;
  int cp = 1;
  int tp = 1;
  int pp = 1;

  int operator[](MeshAxis axis) const;
  /// This rank's place on an axis when it has place `rank` in the job.
  int coordinate(MeshAxis axis, int rank) const;
  /// The first rank of the job with place `coordinate` on an axis: the others' places are 0.
  int first_rank(MeshAxis axis, int coordinate) const;
};

/// Immutable after construction. On a device each axis has the stream of its kind: kTensorComm for tp and cp,
/// kPipelineComm for pp, kParamComm for the others and for products of axes.
class Mesh {
 public:
  /// Collective over `world`, which is not kept. ConfigError when a size is below 1 or the product is not
  /// the number of ranks.
  Mesh(Communicator& world, const MeshSizes& sizes);

  /// The ranks that differ from this one on `axis` only; rank() in it is this rank's coordinate. A
  /// group of this rank alone on an axis of size 1.
  Communicator& axis(MeshAxis axis) const { return *groups_.at(static_cast<std::size_t>(axis)); }
  int size(MeshAxis axis) const { return sizes_[axis]; }
  const MeshSizes& sizes() const { return sizes_; }
  int coordinate(MeshAxis axis) const { return coordinates_.at(static_cast<std::size_t>(axis)); }
  /// The ranks that differ from this one on `axes` only, in rank order. Collective over `world`.
  std::unique_ptr<Communicator> group(Communicator& world, std::span<const MeshAxis> axes) const;
  /// All five axes, for ShardSpec::resolve.
  Coordinates coordinates() const;

 private:
  MeshSizes sizes_;
  std::array<int, kMeshAxisCount> coordinates_{};
  std::array<std::unique_ptr<Communicator>, kMeshAxisCount> groups_;
};

}  // namespace caravan

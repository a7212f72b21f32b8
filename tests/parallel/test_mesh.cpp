// RANKS 1 2 4 8
#include "caravan/comm/mesh.h"

#include <catch2/catch.hpp>
#include <vector>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/core/error.h"
#include "tests/support/origin_data.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::array<MeshAxis, kMeshAxisCount> kAxes = {MeshAxis::kDpReplicate, MeshAxis::kPp,
                                                        MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp};

/// Every way to write `ranks` (a power of two) as a product of five axes.
std::vector<MeshSizes> all_meshes(int ranks) {
  std::vector<MeshSizes> meshes;
  for (int pp = 1; pp <= ranks; pp *= 2) {
    for (int replicate = 1; pp * replicate <= ranks; replicate *= 2) {
      for (int shard = 1; pp * replicate * shard <= ranks; shard *= 2) {
        for (int cp = 1; pp * replicate * shard * cp <= ranks; cp *= 2) {
          const int tp = ranks / (pp * replicate * shard * cp);
          meshes.push_back({.dp_replicate = replicate, .dp_shard = shard, .cp = cp, .tp = tp, .pp = pp});
        }
      }
    }
  }
  return meshes;
}

/// The ranks that share all coordinates but the one on `axis`, by the definition of the rank order.
std::vector<std::int64_t> members_of(const Mesh& mesh, MeshAxis axis) {
  std::vector<std::int64_t> members;
  for (int member = 0; member < mesh.size(axis); ++member) {
    std::int64_t rank = 0;
    for (const MeshAxis outer_first : kAxes) {
      const int coordinate = outer_first == axis ? member : mesh.coordinate(outer_first);
      rank = rank * mesh.size(outer_first) + coordinate;
    }
    members.push_back(rank);
  }
  return members;
}

}  // namespace

TEST_CASE("the coordinates give the rank back, with tp innermost and dp_replicate outermost",
          "[comm][mesh]") {
  const auto world = MpiCommunicator::over_world();
  for (const MeshSizes& sizes : all_meshes(world->size())) {
    const Mesh mesh(*world, sizes);
    const Coordinates at = mesh.coordinates();
    std::int64_t rank = 0;
    for (const std::string axis : {"dp_replicate", "pp", "dp_shard", "cp", "tp"}) {
      REQUIRE(at.index(axis) < at.count(axis));
      rank = rank * at.count(axis) + at.index(axis);
    }
    REQUIRE(rank == world->rank());
    REQUIRE(mesh.coordinate(MeshAxis::kTp) == world->rank() % sizes.tp);
    REQUIRE(mesh.coordinate(MeshAxis::kDpReplicate) == world->rank() / (world->size() / sizes.dp_replicate));
    for (const MeshAxis axis : kAxes) {
      for (int place = 0; place < sizes[axis]; ++place) {
        const int first = sizes.first_rank(axis, place);
        for (const MeshAxis other : kAxes) {
          REQUIRE(sizes.coordinate(other, first) == (other == axis ? place : 0));
        }
      }
    }
  }
}

TEST_CASE("each axis joins exactly the ranks that differ on it, in coordinate order", "[comm][mesh]") {
  const auto world = MpiCommunicator::over_world();
  for (const MeshSizes& sizes : all_meshes(world->size())) {
    const Mesh mesh(*world, sizes);
    for (const MeshAxis axis : kAxes) {
      INFO("axis " << mesh_axis_name(axis) << " of size " << mesh.size(axis));
      Communicator& group = mesh.axis(axis);
      REQUIRE(group.size() == sizes[axis]);
      REQUIRE(group.rank() == mesh.coordinate(axis));
      auto mine = origin_matrix<double>(world->rank(), 2, 3);
      group.all_reduce(mine.view());
      OwnedMatrix<double> expected(2, 3, 0.0);
      for (const std::int64_t member : members_of(mesh, axis)) {
        auto other = origin_matrix<double>(member, 2, 3);
        for (std::size_t i = 0; i < other.values.size(); ++i) {
          expected.values[i] += other.values[i];
        }
      }
      REQUIRE(mine.values == expected.values);
    }
  }
}

TEST_CASE("reducing over all axes one after the other reduces over the world", "[comm][mesh]") {
  const auto world = MpiCommunicator::over_world();
  for (const MeshSizes& sizes : all_meshes(world->size())) {
    const Mesh mesh(*world, sizes);
    auto over_axes = origin_matrix<double>(world->rank(), 2, 3);
    for (const MeshAxis axis : kAxes) {
      mesh.axis(axis).all_reduce(over_axes.view());
    }
    auto over_world = origin_matrix<double>(world->rank(), 2, 3);
    world->all_reduce(over_world.view());
    REQUIRE(over_axes.values == over_world.values);
  }
}

TEST_CASE("sizes that do not make the world are refused with the numbers", "[comm][mesh]") {
  const auto world = MpiCommunicator::over_world();
  REQUIRE_THROWS_AS(Mesh(*world, {.tp = 3}), ConfigError);
  REQUIRE_THROWS_WITH(
      Mesh(*world, {.cp = 3, .tp = 5}),
      Catch::Contains("cp 3, tp 5 does not make " + std::to_string(world->size()) + " ranks"));
  REQUIRE_THROWS_WITH(Mesh(*world, {.dp_shard = 0}), Catch::Contains("axis dp_shard has size 0"));
  REQUIRE_THROWS_AS(Mesh(*world, {.cp = 2147483647, .tp = 2147483647, .pp = 2147483647}), ConfigError);
}

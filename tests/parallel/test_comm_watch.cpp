// RANKS 2 4
// Ranks that do not meet: the self-test of a mesh's groups, and the end of a job that would wait for ever.
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "caravan/comm/comm_watch.h"
#include "caravan/comm/mpi_session.h"
#include "caravan/config/model_config.h"
#include "caravan/parallel/mesh_groups.h"
#include "caravan/parallel/mesh_layout.h"
#include "tests/support/faulty_communicator.h"

using namespace caravan;
using namespace caravan::test;

namespace {

Communicator& world() {
  return MpiSession::current().world();
}

/// The self-test's words about groups made over `ranks`; empty when it finds nothing.
std::string self_test(Communicator& ranks, const ParallelSection& parallel, std::int64_t n_kv_heads = 4) {
  const MeshSizes sizes = resolve_mesh(parallel, ranks.size());
  ModelConfig model = *model_preset("tiny");
  model.n_kv_heads = n_kv_heads;
  const MeshGroups groups(ranks, sizes, mesh_coordinates(parallel, model, sizes, ranks.rank()));
  try {
    groups.check(ranks);
  } catch (const CommError& problem) {
    return problem.what();
  }
  return "";
}

/// Late enough for the others to say theirs.
void say_and_end(const std::string& report) {
  fmt::print(stderr, "[rank {}] {}\n", world().rank(), report);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  MpiSession::abort(1);
}

}  // namespace

TEST_CASE("the self-test passes on every mesh", "[parallel][comm]") {
  for (const ParallelSection& parallel :
       {ParallelSection{}, ParallelSection{.dp_shard = 1, .tp = -1}, ParallelSection{.dp_shard = 1, .cp = -1},
        ParallelSection{.dp_replicate = 2}, ParallelSection{.tp = 2}, ParallelSection{.cp = 2},
        ParallelSection{.pp = 2}, ParallelSection{.dp_shard = 1, .pp = -1}}) {
    CHECK(self_test(world(), parallel).empty());
    CHECK(self_test(world(), parallel, 1).empty());  // ranks of tp share the one head of keys and values
  }
}

TEST_CASE("the self-test names a group whose ranks stand in another order, or do not add up",
          "[parallel][comm]") {
  const ParallelSection parallel{.dp_shard = 1, .tp = -1};
  FaultyCommunicator reversed(world(), {.kind = PlantedFault::Kind::kReversedRanks, .split = 0});
  CHECK_THAT(
      self_test(reversed, parallel),
      Catch::StartsWith(fmt::format("mesh self-test: group tp of rank {} has the ranks", world().rank())) &&
          Catch::Contains("it must have 0, 1"));
  FaultyCommunicator silent(world(), {.kind = PlantedFault::Kind::kMissingAllReduce, .split = 0});
  CHECK_THAT(self_test(silent, parallel), Catch::Contains("group tp") && Catch::Contains("adds the numbers"));
}

// Hidden: tests/integration/test_hanging_rank.sh runs them and expects the job to end.
TEST_CASE("#810, #1207: rank 1 misses an all_reduce over tp", "[.][skips-all-reduce]") {
  const Mesh mesh(world(), {.dp_shard = world().size() / 2, .tp = 2});
  CommWatch watch(1.0, say_and_end);
  Communicator& tp = mesh.axis(MeshAxis::kTp);
  tp.all_reduce_value(1.0);
  if (world().rank() != 1) {
    double value = 1.0;
    tp.start_all_reduce(TensorView(&value, DType::kFloat64, {1})).wait();
  }
  world().barrier();
}

TEST_CASE("rank 1 misses the making of a group", "[.][skips-split]") {
  CommWatch watch(1.0, say_and_end);
  if (world().rank() != 1) {
    world().split(0, world().rank());
  }
  world().barrier();
}

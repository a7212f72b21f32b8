// RANKS 2 4
// TIMEOUT 300
// caravan verify's comparisons between devices: sound meshes are within their tolerances in float32 and
// bfloat16, planted faults are found and named. Device memory that the host touches ends the test.
#include <catch2/catch.hpp>

#include "caravan/backend/device_memory.h"
#include "caravan/train/verifier.h"
#include "device_ranks.h"
#include "support/faulty_communicator.h"
#include "support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// Small, since kernels are slow here: two micro-batches for each of two copies.
constexpr std::int64_t kRows = 4;
constexpr std::int64_t kLongest = 10;

using Spoil = std::function<void(const std::vector<ParameterShard>& shards)>;

/// Verifies a mesh of devices over `mesh_world`, in which something may go wrong.
Verification verify(Communicator& world, Communicator& mesh_world, const ParallelSection& parallel,
                    DType dtype, std::int64_t steps, const Spoil& spoil = {}) {
  RunConfig config = mesh_config(parallel, dtype, kRows, kLongest);
  config.training.micro_batch = 1;
  const ModelConfig model = mesh_model(false);
  MeshRun mesh(mesh_world, config, model, device_backend());
  if (spoil) {
    mesh->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
      initialise(ctx, shards, 5);
      spoil(shards);
    });
  }
  const auto self = world.alone();
  std::unique_ptr<MeshRun> one_rank;
  if (world.rank() == Verifier::kRoot) {
    one_rank = std::make_unique<MeshRun>(*self, one_rank_config(config, mesh->layout().sizes), model,
                                         device_backend());
  }
  Verifier verifier({world, *mesh, one_rank ? &**one_rank : nullptr, 0});
  verifier.compare_models(mesh_batch(0, kRows, kLongest, false));
  for (std::int64_t step = 0; step < steps; ++step) {
    verifier.compare_step(mesh_batch(step, kRows, kLongest, false), 3e-3);
  }
  return verifier.result();
}

/// The first tensor that differs on the root, and nothing elsewhere.
void check_first_difference(Communicator& world, const Verification& result, const std::string& name) {
  const Difference* first = result.first_difference();
  CHECK((first == nullptr ? "none" : first->name) == (world.rank() == Verifier::kRoot ? name : "none"));
}

}  // namespace

TEST_CASE("sound meshes of devices lie within their tolerances, with room", "[verify]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const DType dtype = GENERATE(DType::kFloat32, DType::kBFloat16);
  for (const ParallelSection& parallel :
       {ParallelSection{.dp_shard = -1}, ParallelSection{.dp_shard = -1, .tp = 2},
        ParallelSection{.dp_shard = -1, .pp = 2}}) {
    CAPTURE(parallel.tp, parallel.pp, dtype_name(dtype));
    const Verification result = verify(*world, *world, parallel, dtype, 2);
    check_first_difference(*world, result, "none");
    if (world->rank() != Verifier::kRoot) {
      continue;
    }
    CHECK(result.gradients.size() == parameter_table(mesh_model(false), ShardTable::kSynchronous).size());
    CHECK(result.steps.size() == 2);
    std::int64_t unequal = 0;
    for (const auto* list : {&result.outputs, &result.gradients, &result.losses}) {
      for (const Difference& each : *list) {
        CAPTURE(each.name, each.relative, each.tolerance);
        CHECK(each.relative <= 0.5 * each.tolerance);
        unequal += each.unequal;
      }
    }
    CHECK((parallel.tp == 1 || unequal > 0));  // other sums were made, and compared
    CHECK(result.top_k.front().agreement >= 0.9);
  }
}

TEST_CASE("one bit of one bfloat16 weight on one device is found, and named to the element", "[verify]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  const int at_fault = world->size() - 1;
  const Verification result =
      verify(*world, *world, {.dp_shard = -1, .tp = 2}, DType::kBFloat16, 0,
             [&](const std::vector<ParameterShard>& shards) {
               for (const ParameterShard& shard : shards) {
                 if (world->rank() == at_fault && shard.parameter->name() == "layers.1.attention.wk.weight") {
                   HostDraft draft(shard.value);
                   copy_to_host(shard.value, draft.view().raw());
                   draft.view().data<BFloat16>()[3].bits ^= 1U;
                   draft.commit();
                 }
               }
             });
  check_first_difference(*world, result, "layers.1.attention.wk.weight");
  if (world->rank() == Verifier::kRoot) {
    CHECK(result.first_difference()->detail.starts_with("element ["));
    CHECK(result.outputs.front().is_within());
  }
}

TEST_CASE("a reduction that is missing between bfloat16 devices is found, and its segment named",
          "[verify]") {
  if (!device_or_skip()) {
    return;
  }
  const auto world = device_world();
  // tp sums the embedding, then attention and MLP of every layer.
  FaultyCommunicator faulty(*world, {.kind = PlantedFault::Kind::kMissingAllReduce, .split = 0, .call = 3});
  const ParallelSection tp{.dp_shard = 1, .tp = world->size(), .sequence_parallel = false};
  check_first_difference(*world, verify(*world, faulty, tp, DType::kBFloat16, 0), "layers.1.attention");
}

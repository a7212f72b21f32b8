// RANKS 2
// What attention over divided rows may not do, counted by the emulated device.
#include <catch2/catch.hpp>

#include "../device_ranks.h"
#include "host_runner/emulated_device.h"
#include "small_model.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// How often the host waits for a whole queue in one step; waits for single exchanges are not among them.
std::int64_t waits_of_a_step(Communicator& world, ContextExchange exchange, Recompute recompute,
                             int n_layers) {
  const ParallelSection parallel = {.dp_shard = 1, .cp = 2, .context = exchange};
  RunConfig config = mesh_config(parallel, DType::kFloat32, 2, 8);
  config.training.micro_batch = 1;
  config.training.recompute = recompute;
  MeshRun run(world, config, small_model(n_layers), device_backend());
  run->step(full_batch(0, 2, 8), 1e-3);
  const host_runner::DeviceActivity before = host_runner::device_activity();
  run->step(full_batch(1, 2, 8), 1e-3);
  return host_runner::device_activity().synchronizations - before.synchronizations;
}

}  // namespace

TEST_CASE("however many layers divided rows pass, the host waits for the step's results alone", "[context]") {
  const auto world = device_world();
  for (const ContextExchange exchange : {ContextExchange::kGather, ContextExchange::kRing}) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      for (const int n_layers : {1, 3}) {
        INFO("exchange " << static_cast<int>(exchange) << ", recompute " << static_cast<int>(recompute)
                         << ", " << n_layers << " layers");
        CHECK(waits_of_a_step(*world, exchange, recompute, n_layers) == 1);
      }
    }
  }
}

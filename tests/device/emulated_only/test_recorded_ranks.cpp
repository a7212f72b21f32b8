// RANKS 2 4
// Steps of several ranks that are recorded with what the ranks exchange over the fake NCCL.
#include <catch2/catch.hpp>
#include <functional>

#include "../device_ranks.h"
#include "caravan/comm/nccl_communicator.h"
#include "caravan/core/error.h"
#include "host_runner/device_queues.h"
#include "host_runner/emulated_device.h"
#include "small_model.h"
#include "support/fake_nccl.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kLongest = 8;  // tokens of a row, and in other steps half of them

struct Layout {
  const char* name;
  ParallelSection parallel;
  DType dtype = DType::kFloat32;
};

/// Every store, boundary and exchange that recorded passes meet; on four ranks two at a time.
std::vector<Layout> layouts(int ranks) {
  if (ranks == 4) {
    return {{"hsdp", {.dp_replicate = 2, .dp_shard = 2}},
            {"fsdp and tp", {.dp_shard = 2, .tp = 2}, DType::kBFloat16},
            {"fsdp over cp and dp_shard", {.dp_shard = 2, .cp = 2}},
            {"ddp and tp", {.dp_replicate = 2, .dp_shard = 1, .tp = 2}}};
  }
  return {{"ddp", {.dp_replicate = 2, .dp_shard = 1, .ddp_bucket_mib = 0.001}},
          {"tp", {.dp_shard = 1, .tp = 2, .sequence_parallel = false}},
          {"tp and sp", {.dp_shard = 1, .tp = 2}, DType::kBFloat16},
          {"cp", {.dp_shard = 1, .cp = 2}},
          {"zero 1", {.dp_shard = 2, .zero_stage = 1}},
          {"zero 2", {.dp_shard = 2, .zero_stage = 2}},
          {"zero 3", {.dp_shard = 2}, DType::kBFloat16},
          {"zero 3, kept from forward to backward", {.dp_shard = 2, .reshard_after_forward = false}}};
}

std::int64_t rows_of(const ParallelSection& parallel) {
  return 2 * parallel.dp_replicate * parallel.dp_shard;
}

/// Two micro-batches of one row.
RunConfig config_of(const Layout& layout, GraphChoice graphs) {
  RunConfig config = mesh_config(layout.parallel, layout.dtype, rows_of(layout.parallel), kLongest);
  config.training.micro_batch = 1;
  config.training.dropout = 0.1;
  config.cuda_graphs = graphs;
  return config;
}

std::shared_ptr<const NcclLibrary> library() {
  static const std::shared_ptr<const NcclLibrary> loaded = [] {
    auto opened = std::make_shared<const NcclLibrary>(fake_nccl_file());
    use_streams<[](void* stream, std::function<void()> work) {
      host_runner::DeviceQueues::instance().enqueue(static_cast<CUstream_st*>(stream), std::move(work));
    }>(*opened);
    return opened;
  }();
  return loaded;
}

std::unique_ptr<Communicator> nccl_world() {
  auto world = std::make_unique<NcclCommunicator>(MpiCommunicator::over_world(), streams(), library());
  world->set_name("world");
  return world;
}

struct Outcome {
  std::vector<double> results;
  std::map<std::string, std::vector<double>> weights;
  Traffic moved;
  std::int64_t replays = 0;
};

/// Two documents in the first row, which is one rank's.
Batch with_packed_row(const Batch& batch) {
  Batch packed = batch;
  for (std::int64_t place = batch.seq_len / 2; place < batch.seq_len; ++place) {
    packed.document_start[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(batch.seq_len / 2);
  }
  return packed;
}

/// Steps of two lengths and a packed one; later ones with evaluations between them, which leave units
/// gathered and ask for others, and once with other weights.
Outcome train(Communicator& world, const RunConfig& config) {
  MeshRun run(world, config, small_model(), device_backend());
  const std::int64_t rows = rows_of(config.parallel);
  Outcome outcome;
  const Traffic before = run->traffic();
  for (std::int64_t step = 0; step < 7; ++step) {
    const bool is_short = step == 2 || step > 4;
    const Batch batch = full_batch(step, rows, is_short ? kLongest / 2 : kLongest);
    const StepResult result =
        run->step(step == 4 ? with_packed_row(batch) : batch, 1e-2 * static_cast<double>(step + 1));
    outcome.results.push_back(result.loss);
    outcome.results.push_back(result.grad_norm);
    if (step > 2) {
      outcome.results.push_back(run->loss_sum(full_batch(100, rows, kLongest)));
    }
    if (step == 3) {
      run->load(
          [](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 6); });
    }
  }
  outcome.moved = run->traffic();
  outcome.moved -= before;
  outcome.replays = run->trainer().executor().recorded().replays();
  outcome.weights = run.weights();
  return outcome;
}

/// A recorded pass of stage 3 begins with no unit gathered. Op by op, the second of each of seven steps finds
/// those that the first has ended with, and evaluations and steps find those of each other.
std::int64_t most_gathered_anew(const ParallelSection& parallel) {
  if (parallel.dp_shard == 1 || parallel.zero_stage < 3) {
    return 0;
  }
  return (7 + 7) * (parallel.reshard_after_forward ? 3 : 6);
}

}  // namespace

TEST_CASE("replayed steps of several ranks compute and move what steps op by op do, bit for bit",
          "[device]") {
  const auto world = nccl_world();
  for (const Layout& layout : layouts(world->size())) {
    INFO(layout.name);
    const Outcome plain = train(*world, config_of(layout, GraphChoice::kAuto));
    const Outcome replayed = train(*world, config_of(layout, GraphChoice::kAlways));
    CHECK(replayed.results == plain.results);
    CHECK(replayed.weights == plain.weights);
    CHECK(plain.replays == 0);
    // The two passes of a step: of three and three that are alike all but the first. The packed one has no
    // like on any rank, though but one of them sees two documents; with divided rows it is like the long
    // ones.
    CHECK(replayed.replays == 2 * (2 + 2 + (layout.parallel.cp > 1 ? 1 : 0)));
    for (std::size_t i = 0; i < kCollectiveCount; ++i) {
      const auto collective = static_cast<Collective>(i);
      const TrafficCounter& there = replayed.moved[collective];
      const TrafficCounter& here = plain.moved[collective];
      INFO(collective_name(collective));
      if (collective == Collective::kAllGather) {
        CHECK(there.calls >= here.calls);
        CHECK(there.calls <= here.calls + most_gathered_anew(layout.parallel));
        CHECK(there.library_calls == there.calls);
        CHECK((there.received_bytes == here.received_bytes) == (there.calls == here.calls));
      } else {
        CHECK(there.calls == here.calls);
        CHECK(there.library_calls == here.library_calls);
        CHECK(there.sent_bytes == here.sent_bytes);
        CHECK(there.received_bytes == here.received_bytes);
      }
    }
  }
}

TEST_CASE("after the first steps none allocates, and the host waits only for the results, on ranks too",
          "[device]") {
  const auto world = nccl_world();
  const Layout layout = {"zero 3", {.dp_shard = world->size()}};
  const std::int64_t rows = rows_of(layout.parallel);
  MeshRun run(*world, config_of(layout, GraphChoice::kAlways), small_model(), device_backend());
  for (std::int64_t step = 0; step < 2; ++step) {
    run->step(full_batch(step, rows, kLongest), 1e-3);
  }
  const host_runner::DeviceActivity before = host_runner::device_activity();
  run->step(full_batch(2, rows, kLongest), 1e-3);
  const host_runner::DeviceActivity after = host_runner::device_activity();
  CHECK(after.allocations == before.allocations);
  CHECK(after.synchronizations - before.synchronizations == 1);
}

TEST_CASE("a recording does not outlive an error within it", "[device]") {
  const auto world = nccl_world();
  const Layout layout = {"ddp", {.dp_replicate = world->size(), .dp_shard = 1}};
  const Batch batch = full_batch(0, rows_of(layout.parallel), kLongest);
  MeshRun run(*world, config_of(layout, GraphChoice::kAlways), small_model(), device_backend());
  run->step(batch, 1e-3);
  make_nccl_fail(*library(), "AllReduce", 0, 1, false);
  CHECK_THROWS_WITH(run->step(batch, 1e-3), Catch::StartsWith("ncclAllReduce failed on rank"));
  CHECK_FALSE(host_runner::DeviceQueues::instance().is_recording());
}

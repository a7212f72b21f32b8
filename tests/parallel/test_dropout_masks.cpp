// RANKS 1 2 4 8
// TIMEOUT 300
// The masks that a run draws, bit for bit: for the same token, layer and site the same ones on every mesh.
#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <tuple>

#include "caravan/comm/mpi_session.h"
#include "tests/support/mesh_runs.h"
#include "tests/support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;
constexpr int kSteps = 2;

struct Layout {
  std::string name;
  ParallelSection parallel;
  std::int64_t micro_batch = 1;
  Recompute recompute = Recompute::kNone;
};

std::vector<Layout> layouts(std::int64_t ranks) {
  constexpr auto kRing = ContextExchange::kRing;
  std::vector<Layout> all = {{.name = "accumulation", .parallel = {.dp_replicate = ranks, .dp_shard = 1}},
                             {.name = "full", .parallel = {}, .recompute = Recompute::kFull}};
  if (ranks == 1) {
    return all;
  }
  all.push_back({.name = "tp", .parallel = {.dp_shard = 1, .tp = ranks, .sequence_parallel = false}});
  all.push_back({.name = "tp, sp", .parallel = {.dp_shard = 1, .tp = ranks}, .micro_batch = 4});
  all.push_back({.name = "cp", .parallel = {.dp_shard = 1, .cp = ranks}, .micro_batch = 2});
  all.push_back({.name = "pp", .parallel = {.pp = 2}, .recompute = Recompute::kSelective});
  if (ranks >= 4) {
    all.push_back(
        {.name = "pp zero bubble x cp",
         .parallel = {
             .cp = 2, .pp = 2, .pipeline_schedule = PipelineSchedule::kZeroBubble, .context = kRing}});
    all.push_back({.name = "tp, sp x cp", .parallel = {.cp = 2, .tp = 2}});
  }
  return all;
}

/// Step, site, row, place.
using Token = std::tuple<int, std::uint32_t, std::int32_t, std::int32_t>;

/// The masks of some training steps.
struct Drawn {
  std::map<Token, std::vector<bool>> masks;
  std::int64_t draws = 0;  // of one token's mask; forward and backward draw each
  bool is_consistent = true;

  void add(const Token& token, const std::vector<bool>& mask) {
    ++draws;
    const auto [found, is_new] = masks.emplace(token, mask);
    is_consistent = is_consistent && (is_new || found->second == mask);
  }
};

Drawn masks_of(Communicator& world, const RunConfig& config, bool is_packed) {
  const ModelConfig model = mesh_model(false);
  const std::unique_ptr<Backend> cpu = make_cpu_backend();
  RecordingBackend backend(*cpu);
  Drawn drawn;
  int step = 0;
  backend.on_dropout = [&](const DropoutArgs& args, Stream& stream) {
    std::vector<double> ones(static_cast<std::size_t>(args.x.numel()), 1.0);
    DropoutArgs on_ones = args;
    on_ones.x = on_ones.y = TensorView(ones.data(), DType::kFloat64, args.x.shape());
    cpu->dropout(on_ones, stream);
    const std::int64_t width = args.x.dim(1);
    for (std::int64_t t = 0; t < args.x.dim(0); ++t) {
      std::vector<bool> mask;
      for (std::int64_t d = 0; d < width; ++d) {
        mask.push_back(ones[static_cast<std::size_t>(t * width + d)] != 0.0);
      }
      drawn.add({step, args.site, args.rows.data<std::int32_t>()[t], args.places.data<std::int32_t>()[t]},
                mask);
    }
  };
  SynchronousRun run({config, model, world, backend});
  run.load([](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 5); });
  for (step = 0; step < kSteps; ++step) {
    run.step(mesh_batch(step, kRows, kLongest, is_packed), 1e-3);
  }
  const std::int64_t in_training = drawn.draws;
  run.loss_sum(mesh_batch(0, kRows, kLongest, is_packed));
  CHECK(drawn.draws == in_training);
  return drawn;
}

RunConfig config_of(const Layout& layout) {
  RunConfig config = mesh_config(layout.parallel, DType::kFloat64, kRows, kLongest);
  config.training.micro_batch = layout.micro_batch;
  config.training.recompute = layout.recompute;
  config.training.dropout = 0.3;
  return config;
}

}  // namespace

TEST_CASE("every mesh draws the masks of one rank, for every token, layer and site", "[parallel][dropout]") {
  Communicator& world = MpiSession::current().world();
  const bool is_packed = GENERATE(false, true);
  SelfCommunicator self;
  const Drawn expected = masks_of(
      self, config_of({.name = "one rank", .parallel = {.dp_shard = 1}, .micro_batch = kRows}), is_packed);
  REQUIRE(expected.is_consistent);
  // Two steps, two layers of two sites.
  std::int64_t tokens = 0;
  for (int step = 0; step < kSteps; ++step) {
    tokens += mesh_batch(step, kRows, kLongest, is_packed).n_tokens();
  }
  REQUIRE(std::ssize(expected.masks) == 4 * tokens);
  REQUIRE(expected.draws == 2 * 4 * tokens);
  for (const Layout& layout : layouts(world.size())) {
    CAPTURE(layout.name, is_packed);
    const Drawn drawn = masks_of(world, config_of(layout), is_packed);
    CHECK(drawn.is_consistent);
    // On how many ranks each token of the one-rank run is; padding that only the mesh has is not looked at.
    std::vector<double> copies;
    std::int64_t unequal = 0;
    for (const auto& [token, mask] : expected.masks) {
      const auto here = drawn.masks.find(token);
      copies.push_back(here != drawn.masks.end() ? 1.0 : 0.0);
      unequal += here != drawn.masks.end() && here->second != mask ? 1 : 0;
    }
    CHECK(unequal == 0);
    world.all_reduce(TensorView(copies.data(), DType::kFloat64, {std::ssize(copies)}));
    // Each token is somewhere, and only tensor parallelism without sequence parallelism has it more than
    // once.
    const bool is_copied = layout.parallel.tp > 1 && !layout.parallel.sequence_parallel;
    const auto wanted = static_cast<double>(is_copied ? layout.parallel.tp : 1);
    CHECK(std::all_of(copies.begin(), copies.end(), [&](double count) { return count == wanted; }));
  }
}

// RANKS 1 2 4 8
// TIMEOUT 900
// "Any mesh" on a list of layouts that has every pair of choices: gradients, losses and the shared
// references.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "caravan/train/verifier.h"
#include "tests/support/covering_layouts.h"
#include "tests/support/golden_run.h"
#include "tests/support/one_rank_reference.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;
constexpr int kSteps = 20;
constexpr double kReferenceTolerance = 1e-9;  // of the shared references, as on one rank

enum class Stages : std::uint8_t { kOne, kSeveral, kAny };

/// The layouts of this many ranks.
std::vector<CoveringLayout> layouts_here(Stages stages) {
  std::vector<CoveringLayout> here;
  for (const CoveringLayout& layout : covering_layouts()) {
    const bool is_wanted = stages == Stages::kAny || (stages == Stages::kOne) == (layout.parallel.pp == 1);
    if (is_wanted && layout.ranks() == MpiSession::current().world().size()) {
      here.push_back(layout);
    }
  }
  return here;
}

RunConfig config_of(const CoveringLayout& layout, DType dtype) {
  RunConfig config = mesh_config(layout.parallel, dtype, kRows, kLongest);
  config.training.recompute = layout.recompute;
  if (layout.accumulates) {
    config.training.micro_batch = 1;
  }
  return config;
}

RunConfig one_rank_of(const RunConfig& config, const MeshSizes& sizes) {
  RunConfig one = one_rank_config(config, sizes);
  one.training.recompute = Recompute::kNone;
  one.training.micro_batch = kRows;
  return one;
}

/// Deeper models amplify rounding within twenty steps: of 8 layers, tied and packed, accumulation on one rank
/// alone moves float32's norms by 4e-4 at 1e-3, and by 2e-6 at 3e-4.
double learning_rate(const CoveringLayout& layout) {
  return layout.n_layers() > 4 ? 3e-4 : (layout.n_layers() > 2 ? 1e-3 : 3e-3);
}

void check_all(const std::vector<Difference>& differences, double limit) {
  for (const Difference& each : differences) {
    CAPTURE(each.name, each.rank, each.relative);
    CHECK(each.relative <= limit);
  }
}

}  // namespace

TEST_CASE("every layout has the weights, outputs, gradients and twenty losses of one rank",
          "[parallel][layout]") {
  Communicator& world = MpiSession::current().world();
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  for (const CoveringLayout& layout : layouts_here(Stages::kOne)) {
    CAPTURE(layout.name(), dtype_name(dtype));
    const RunConfig config = config_of(layout, dtype);
    const ModelConfig model = mesh_model(layout.is_tied, 2, layout.n_kv_heads);
    MeshRun mesh(world, config, model);
    SelfCommunicator self;
    std::unique_ptr<MeshRun> one_rank;
    if (world.rank() == Verifier::kRoot) {
      one_rank = std::make_unique<MeshRun>(self, one_rank_of(config, mesh->layout().sizes), model);
    }
    Verifier verifier({world, *mesh, one_rank ? &**one_rank : nullptr, 0});
    verifier.compare_models(mesh_batch(0, kRows, kLongest, layout.is_packed));
    for (int step = 0; step < kSteps; ++step) {
      verifier.compare_step(mesh_batch(step, kRows, kLongest, layout.is_packed), learning_rate(layout));
    }
    const Verification& result = verifier.result();
    check_all(result.weights, 0.0);
    check_all(result.outputs, mesh_tolerance(dtype));
    check_all(result.gradients, mesh_tolerance(dtype));
    for (const StepComparison& step : result.steps) {
      CAPTURE(step.step, step.loss, step.one_rank_loss);
      CHECK(std::abs(step.loss - step.one_rank_loss) <= mesh_tolerance(dtype) * step.one_rank_loss);
      // A norm is a sum over all gradients; twenty updates apart, its rounding is some steps' together.
      CHECK(std::abs(step.grad_norm - step.one_rank_grad_norm) <=
            10 * mesh_tolerance(dtype) * step.one_rank_grad_norm);
    }
    const bool is_root = world.rank() == Verifier::kRoot;
    CHECK(result.steps.size() == (is_root ? kSteps : 0));
  }
}

TEST_CASE("every pipelined layout has the weights, gradients and twenty losses of one rank",
          "[parallel][layout][pipeline]") {
  Communicator& world = MpiSession::current().world();
  const DType dtype = GENERATE(DType::kFloat64, DType::kFloat32);
  for (const CoveringLayout& layout : layouts_here(Stages::kSeveral)) {
    CAPTURE(layout.name(), dtype_name(dtype));
    const RunConfig config = config_of(layout, dtype);
    const RunConfig one = one_rank_of(config, resolve_mesh(config.parallel, world.size()));
    const MeshTask task{
        .model = mesh_model(layout.is_tied, layout.n_layers(), layout.n_kv_heads),
        .batch = [&](std::int64_t number) { return mesh_batch(number, kRows, kLongest, layout.is_packed); },
        .steps = kSteps,
        .lr = learning_rate(layout)};
    check_against_one_rank(world, config, task, one_rank_reference(world, one, task));
    const auto weights = MeshRun(world, config, task.model).weights();
    if (world.rank() == 0) {
      SelfCommunicator self;
      CHECK(weights == MeshRun(self, one, task.model).weights());
    }
  }
}

TEST_CASE("twenty AdamW steps equal the shared references in every layout", "[parallel][layout][golden]") {
  Communicator& world = MpiSession::current().world();
  for (const CoveringLayout& layout : layouts_here(Stages::kAny)) {
    CAPTURE(layout.name());
    const auto golden = shared_path(layout.is_tied ? "goldens/tiny-llama3-tied" : "goldens/tiny-llama3");
    if (!golden) {
      continue;
    }
    const nlohmann::json reference = read_json(*golden + "/reference.json").at("adamw_20_steps");
    const std::int64_t stages = layout.parallel.pp * layout.parallel.stages_per_rank;
    GoldenRun golden_run(world, *golden,
                         {.parallel = layout.parallel,
                          .micro_batch = layout.accumulates ? std::optional<std::int64_t>(1) : std::nullopt,
                          .recompute = layout.recompute,
                          .stages = stages});
    SynchronousRun& run = *golden_run.run;
    CHECK(golden_run.model.n_layers == std::max<std::int64_t>(3, stages));
    const auto check_relative = [](double value, double expected) {
      CHECK(std::abs(value - expected) <= kReferenceTolerance * std::abs(expected));
    };
    check_relative(run.evaluate(*golden_run.eval).loss, reference.at("test_loss_before"));
    for (std::size_t step = 0; step < kSteps; ++step) {
      CAPTURE(step);
      check_relative(golden_run.step(0.003).loss, reference.at("losses").at(step));
    }
    if (reference.contains("test_loss_after")) {
      check_relative(run.evaluate(*golden_run.eval).loss, reference.at("test_loss_after"));
    }
  }
}

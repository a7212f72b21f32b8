// RANKS 1 2 4 8
// TIMEOUT 900
// "Any mesh" on a list of layouts that has every pair of choices: gradients, losses and the shared
// references.
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "caravan/train/verifier.h"
#include "tests/support/covering_layouts.h"
#include "tests/support/golden_run.h"
#include "tests/support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;
constexpr int kSteps = 20;
constexpr double kReferenceTolerance = 1e-9;  // of the shared references, as on one rank

std::vector<CoveringLayout> layouts_here() {
  std::vector<CoveringLayout> here;
  for (const CoveringLayout& layout : covering_layouts()) {
    if (layout.ranks() == MpiSession::current().world().size()) {
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
  for (const CoveringLayout& layout : layouts_here()) {
    CAPTURE(layout.name(), dtype_name(dtype));
    const RunConfig config = config_of(layout, dtype);
    const ModelConfig model = mesh_model(layout.is_tied);
    MeshRun mesh(world, config, model);
    SelfCommunicator self;
    std::unique_ptr<MeshRun> one_rank;
    if (world.rank() == Verifier::kRoot) {
      RunConfig one = one_rank_config(config, mesh->layout().sizes);
      one.training.recompute = Recompute::kNone;
      one.training.micro_batch = kRows;
      one_rank = std::make_unique<MeshRun>(self, one, model);
    }
    Verifier verifier({world, *mesh, one_rank ? &**one_rank : nullptr, 0});
    verifier.compare_models(mesh_batch(0, kRows, kLongest, layout.is_packed));
    for (int step = 0; step < kSteps; ++step) {
      verifier.compare_step(mesh_batch(step, kRows, kLongest, layout.is_packed), 3e-3);
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

TEST_CASE("twenty AdamW steps equal the shared references in every layout", "[parallel][layout][golden]") {
  Communicator& world = MpiSession::current().world();
  for (const CoveringLayout& layout : layouts_here()) {
    CAPTURE(layout.name());
    const auto golden = shared_path(layout.is_tied ? "goldens/tiny-llama3-tied" : "goldens/tiny-llama3");
    if (!golden) {
      continue;
    }
    const nlohmann::json reference = read_json(*golden + "/reference.json").at("adamw_20_steps");
    GoldenRun golden_run(world, *golden,
                         {.parallel = layout.parallel,
                          .micro_batch = layout.accumulates ? std::optional<std::int64_t>(1) : std::nullopt,
                          .recompute = layout.recompute});
    SynchronousRun& run = *golden_run.run;
    const auto check_relative = [](double value, double expected) {
      CHECK(std::abs(value - expected) <= kReferenceTolerance * std::abs(expected));
    };
    check_relative(run.evaluate(*golden_run.eval).loss, reference.at("test_loss_before"));
    Batch batch;
    for (std::size_t step = 0; step < kSteps; ++step) {
      CAPTURE(step);
      golden_run.train->next_step(batch);
      check_relative(run.step(batch, 0.003).loss, reference.at("losses").at(step));
    }
    if (reference.contains("test_loss_after")) {
      check_relative(run.evaluate(*golden_run.eval).loss, reference.at("test_loss_after"));
    }
  }
}

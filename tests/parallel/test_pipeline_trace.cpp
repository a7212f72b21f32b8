// RANKS 4
// What the executor of four stages really did, as text: the lists that it walked with their messages, and the
// weight products that its backend was asked for while it did. They stand in docs/notes/pipeline.md beside
// the simulator's; with CARAVAN_UPDATE_DOCS=1 they are written instead of compared.
#include "caravan/parallel/pipeline_trace.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "caravan/comm/mpi_session.h"
#include "caravan/train/pipeline_executor.h"
#include "tests/support/documents.h"
#include "tests/support/mesh_runs.h"
#include "tests/support/recording_backend.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr int kLayers = 8;
constexpr std::int64_t kLongest = 21;
constexpr std::int64_t kProductsOfLayer = 7;  // wq, wk, wv, wo, w1, w2, w3

/// One entry of a rank's walk, as it travels to the others: plain numbers.
struct Entry {
  PipelineTimeline::Interval done;
  std::int64_t weight_products = 0;
};

struct Walk {
  PipelineShape shape;
  std::vector<std::vector<Entry>> ranks;
};

/// Entries of all ranks, on every rank.
std::vector<std::vector<Entry>> entries_of_all(Communicator& world, const std::vector<Entry>& mine) {
  std::string bytes(mine.size() * sizeof(Entry), '\0');
  std::memcpy(bytes.data(), mine.data(), bytes.size());
  std::vector<std::vector<Entry>> all;
  for (int root = 0; root < world.size(); ++root) {
    for (const std::string& part : world.gather_bytes(bytes, root)) {
      std::vector<Entry>& entries = all.emplace_back(part.size() / sizeof(Entry));
      std::memcpy(entries.data(), part.data(), part.size());
    }
  }
  return all;
}

/// Gradients of one step of `micro_batches` rows, one at a time, on four ranks.
Walk walk(PipelineSchedule schedule, std::int64_t micro_batches) {
  Communicator& world = MpiSession::current().world();
  const ParallelSection parallel{.dp_shard = 1,
                                 .pp = 4,
                                 .pipeline_schedule = schedule,
                                 .stages_per_rank = schedule == PipelineSchedule::kInterleaved ? 2 : 1};
  RunConfig config = mesh_config(parallel, DType::kFloat32, micro_batches, kLongest);
  config.training.micro_batch = 1;
  std::vector<PipelineTimeline::Interval> done;
  std::vector<std::int64_t> products;  // by place in `done`, that of the step under way included
  const auto cpu = make_cpu_backend();
  RecordingBackend backend(*cpu, [&](const std::string& op) {
    products.resize(done.size() + 1);
    products.back() += op == "matmul_tn" ? 1 : 0;  // dW = dYᵀ X
  });
  const ModelConfig model = mesh_model(false, kLayers);
  SynchronousRun run({config, model, world, backend});
  run.load([](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 5); });
  products.clear();
  dynamic_cast<PipelineExecutor&>(run.trainer().steps_executor()).record(&done);
  run.gradients(mesh_batch(0, micro_batches, kLongest, false));
  products.resize(done.size());
  std::vector<Entry> mine;
  for (std::size_t i = 0; i < done.size(); ++i) {
    mine.push_back({done[i], products[i]});
  }
  return {run.layout().pipeline, entries_of_all(world, mine)};
}

/// The lists as they were walked.
PipelinePlan walked(const Walk& walk) {
  PipelinePlan plan{.shape = walk.shape, .ranks = {}, .slots = make_pipeline(walk.shape).slots};
  for (const auto& entries : walk.ranks) {
    auto& list = plan.ranks.emplace_back();
    for (const Entry& entry : entries) {
      list.push_back(entry.done.step);
    }
  }
  return plan;
}

PipelineTimeline in_units(const PipelinePlan& plan, double unit) {
  return simulate(plan, {.stages = {{unit, unit, unit}}});
}

/// What the whole pipeline did of `op`.
std::int64_t products_in(const Walk& walk, std::initializer_list<PipelineOp> ops) {
  std::int64_t sum = 0;
  for (const auto& entries : walk.ranks) {
    for (const Entry& entry : entries) {
      const bool is_wanted = std::find(ops.begin(), ops.end(), entry.done.step.op) != ops.end();
      sum += is_wanted ? entry.weight_products : 0;
    }
  }
  return sum;
}

std::string row(std::string_view name, const Walk& walk) {
  const PipelineTimeline timeline = in_units(walked(walk), 1.0 / walk.shape.chunks);
  return fmt::format("| {} | {:g} | {:g} | {:.1f} % | {} | {} |\n", name, timeline.end(),
                     timeline.end() * timeline.bubble_fraction(), 100.0 * timeline.bubble_fraction(),
                     products_in(walk, {PipelineOp::kBackward, PipelineOp::kBackwardInput}),
                     products_in(walk, {PipelineOp::kBackwardWeight}));
}

const Entry& find(const Walk& walk, int stage, std::int64_t micro_batch,
                  std::initializer_list<PipelineOp> ops) {
  const auto& entries = walk.ranks.at(static_cast<std::size_t>(walk.shape.rank_of(stage)));
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) {
    const PipelineStep& step = entry.done.step;
    return step.stage == stage && step.micro_batch == micro_batch &&
           std::find(ops.begin(), ops.end(), step.op) != ops.end();
  });
  REQUIRE(found != entries.end());
  return *found;
}

}  // namespace

TEST_CASE("four stages do what each needs the others for in order, by the clock of the machine",
          "[parallel][pipeline]") {
  for (const auto& [name, schedule] : EnumNames<PipelineSchedule>::kNames) {
    CAPTURE(name);
    const Walk real = walk(schedule, 8);
    CHECK(find_pipeline_faults(walked(real)).empty());
    const std::initializer_list<PipelineOp> forward = {PipelineOp::kForward};
    const std::initializer_list<PipelineOp> backward = {PipelineOp::kBackward, PipelineOp::kBackwardInput};
    for (int stage = 0; stage + 1 < real.shape.stages(); ++stage) {
      for (std::int64_t number = 0; number < 8; ++number) {
        CAPTURE(stage, number);
        CHECK(find(real, stage, number, forward).done.end <=
              find(real, stage + 1, number, forward).done.begin);
        CHECK(find(real, stage + 1, number, backward).done.end <=
              find(real, stage, number, backward).done.begin);
      }
    }
  }
}

TEST_CASE("zero bubble asks for the weight products in the weight halves alone", "[parallel][pipeline]") {
  const Walk real = walk(PipelineSchedule::kZeroBubble, 8);
  const std::int64_t of_stage = kProductsOfLayer * kLayers / real.shape.stages();
  for (const auto& entries : real.ranks) {
    for (const Entry& entry : entries) {
      CAPTURE(describe(entry.done.step));
      const bool is_weight = entry.done.step.op == PipelineOp::kBackwardWeight;
      const bool has_head = entry.done.step.stage + 1 == real.shape.stages() &&
                            entry.done.step.op == PipelineOp::kBackwardInput;
      CHECK(entry.weight_products == (is_weight ? of_stage : has_head ? 1 : 0));
    }
  }
}

TEST_CASE("docs/notes/pipeline.md shows what the executor did", "[parallel][pipeline]") {
  std::string traces;
  std::string table =
      "| | length | waiting per rank | part of the time | weight products in B | in W |\n"
      "|---|---|---|---|---|---|\n";
  for (const auto& [name, schedule] : EnumNames<PipelineSchedule>::kNames) {
    const Walk real = walk(schedule, 8);
    table += row(name, real);
    const PipelinePlan plan = walked(schedule == PipelineSchedule::kInterleaved ? walk(schedule, 4) : real);
    traces += fmt::format("{}\n{}\n", name, trace_text(plan, in_units(plan, 1.0)));
  }
  traces.pop_back();
  if (MpiSession::current().world().rank() == 0) {
    const auto path = docs_folder() / "notes" / "pipeline.md";
    const std::string text = replaced(read_file(path), "executed", "```\n" + traces + "```\n");
    check_file(path, replaced(text, "executed-costs", table));
  }
}

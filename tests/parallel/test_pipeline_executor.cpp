// RANKS 2 4 8
// TIMEOUT 300
// The pipeline executor: what it does in which order, and that the order changes no bit.
#include "caravan/train/pipeline_executor.h"

#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "tests/support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;
constexpr int kLayers = 9;

/// Stages on 2 or 4 ranks, whole copies on the others, one row a micro-batch.
RunConfig pipelined(PipelineSchedule schedule) {
  const std::int64_t ranks = MpiSession::current().world().size();
  const std::int64_t pp = ranks >= 4 ? 4 : 2;
  const ParallelSection parallel{.dp_replicate = ranks / pp,
                                 .dp_shard = 1,
                                 .pp = pp,
                                 .pipeline_schedule = schedule,
                                 .stages_per_rank = schedule == PipelineSchedule::kInterleaved ? 2 : 1};
  RunConfig config = mesh_config(parallel, DType::kFloat32, kRows, kLongest);
  config.training.micro_batch = 1;
  return config;
}

Batch batch() {
  return mesh_batch(0, kRows, kLongest, false);
}

}  // namespace

TEST_CASE("the schedule of a pipeline changes no bit of a gradient", "[parallel][pipeline]") {
  Communicator& world = MpiSession::current().world();
  const bool is_tied = GENERATE(false, true);
  const auto gradients_with = [&](PipelineSchedule schedule) {
    MeshRun run(world, pipelined(schedule), mesh_model(is_tied, kLayers));
    return run.gradients(batch()).values;
  };
  const auto expected = gradients_with(PipelineSchedule::kGpipe);
  CHECK((world.rank() != 0 || expected.size() > 80));
  CHECK(gradients_with(PipelineSchedule::k1F1B) == expected);
  CHECK(gradients_with(PipelineSchedule::kInterleaved) == expected);
  CHECK(gradients_with(PipelineSchedule::kZeroBubble) == expected);
}

TEST_CASE("a rank does what its list says, one after the other", "[parallel][pipeline]") {
  const PipelineSchedule schedule = GENERATE(PipelineSchedule::kGpipe, PipelineSchedule::k1F1B,
                                             PipelineSchedule::kInterleaved, PipelineSchedule::kZeroBubble);
  MeshRun run(MpiSession::current().world(), pipelined(schedule), mesh_model(false, kLayers));
  auto* executor = dynamic_cast<PipelineExecutor*>(&run->trainer().steps_executor());
  REQUIRE(executor != nullptr);
  std::vector<PipelineTimeline::Interval> done;
  executor->record(&done);
  run->gradients(batch());

  const SynchronousLayout& layout = run->layout();
  PipelineShape shape = layout.pipeline;
  shape.micro_batches = kRows / layout.sizes.dp_replicate;
  const std::vector<PipelineStep> listed =
      make_pipeline(shape).ranks.at(static_cast<std::size_t>(layout.at.index("pp")));
  REQUIRE(done.size() == listed.size());
  double now = 0.0;
  for (std::size_t i = 0; i < done.size(); ++i) {
    CAPTURE(describe(listed[i]));
    CHECK(done[i].step == listed[i]);
    CHECK(now <= done[i].begin);
    CHECK(done[i].begin <= done[i].end);
    now = done[i].end;
  }
}

TEST_CASE("zero bubble runs weight gradients later than input gradients", "[parallel][pipeline]") {
  MeshRun run(MpiSession::current().world(), pipelined(PipelineSchedule::kZeroBubble),
              mesh_model(false, kLayers));
  std::vector<PipelineTimeline::Interval> done;
  dynamic_cast<PipelineExecutor&>(run->trainer().steps_executor()).record(&done);
  run->gradients(batch());
  // On all ranks but the first other work comes between the two halves of the first micro-batch's backward.
  const auto place = [&](PipelineOp op) {
    return std::find_if(done.begin(), done.end(),
                        [op](const auto& interval) {
                          return interval.step.op == op && interval.step.micro_batch == 0;
                        }) -
           done.begin();
  };
  const auto later = run->layout().at.index("pp") == 0 ? 1 : 2;
  CHECK(place(PipelineOp::kBackwardWeight) - place(PipelineOp::kBackwardInput) >= later);
  CHECK(place(PipelineOp::kBackwardWeight) < static_cast<std::ptrdiff_t>(done.size()));
}

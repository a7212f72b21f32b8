#include "caravan/parallel/pipeline_simulator.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "support/pipeline_shapes.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// Sums of durations in another order than the formulas'.
constexpr double kRounding = 1e-9;

PipelineTimeline run(const PipelineShape& shape, const StageDurations& durations,
                     std::int64_t send_buffers = SimulationOptions::kUnlimited, double message = 0.0) {
  return simulate(make_pipeline(shape),
                  {.stages = {durations}, .message = message, .send_buffers = send_buffers});
}

const std::vector<StageDurations> kDurations = {
    {1.0, 1.0, 1.0}, {1.0, 0.5, 0.5}, {2.0, 1.0, 1.0}, {1.0, 2.5, 0.25}, {1.0, 3.0, 3.0}};

/// What all micro-batches of a rank take without waiting.
double ideal(const PipelineShape& shape, const StageDurations& d) {
  return static_cast<double>(shape.micro_batches * shape.chunks) *
         (d.forward + d.backward_input + d.backward_weight);
}

}  // namespace

TEST_CASE("no schedule locks up when sends can be left to themselves", "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    // Two messages of a kind on the way are enough for all; and without stages in turns, none need be.
    const std::int64_t enough = shape.chunks > 1 ? 2 : 0;
    for (const std::int64_t buffers : {SimulationOptions::kUnlimited, enough}) {
      const PipelineTimeline timeline = run(shape, {1.0, 1.0, 1.0}, buffers);
      CAPTURE(enum_name(shape.schedule), shape.ranks, shape.chunks, shape.micro_batches, buffers);
      CHECK(timeline.blocked.empty());
    }
  }
}

TEST_CASE("one buffer per kind of message costs no time, where micro-batches divide by ranks",
          "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    const bool divides = shape.chunks == 1 || shape.micro_batches % shape.ranks == 0;
    const std::int64_t buffers = divides ? 1 : std::max(1, shape.ranks - 1);
    for (const StageDurations& durations : kDurations) {
      CAPTURE(enum_name(shape.schedule), shape.ranks, shape.chunks, shape.micro_batches);
      CHECK(std::abs(run(shape, durations, buffers).end() - run(shape, durations).end()) < kRounding);
    }
  }
}

TEST_CASE("a lock-up is found and names ranks and steps", "[parallel][pipeline]") {
  SECTION("receives in another order than sends, which nothing holds in between") {
    PipelinePlan plan = make_pipeline({PipelineSchedule::kGpipe, 2, 1, 2});
    auto& list = plan.ranks[1];
    REQUIRE(list[2].op == PipelineOp::kReceiveActivation);
    std::swap(list[0], list[2]);
    CHECK(simulate(plan, {.stages = {{}}}).blocked.empty());
    const PipelineTimeline timeline = simulate(plan, {.stages = {{}}, .send_buffers = 0});
    REQUIRE(timeline.blocked.size() == 2);
    CHECK(timeline.blocked[0] ==
          "rank 0 waits at step 1: send of the activation of micro-batch 0 in stage 0, to rank 1");
    CHECK(timeline.blocked[1] ==
          "rank 1 waits at step 0: receive of the activation of micro-batch 1 in stage 1, from rank 0");
  }
  SECTION("a message that nobody sends") {
    PipelinePlan plan = make_pipeline({PipelineSchedule::kGpipe, 2, 1, 2});
    std::erase_if(plan.ranks[0], [](const PipelineStep& step) {
      return step.op == PipelineOp::kSendActivation && step.micro_batch == 1;
    });
    const PipelineTimeline timeline = simulate(plan, {.stages = {{}}});
    REQUIRE(timeline.blocked.size() == 2);
    CHECK(timeline.blocked[0] ==
          "rank 0 waits at step 3: receive of the gradient of micro-batch 0 in stage 0, from rank 1");
    CHECK(timeline.blocked[1] ==
          "rank 1 waits at step 2: receive of the activation of micro-batch 1 in stage 1, from rank 0");
  }
  SECTION("a message to the wrong rank") {
    PipelinePlan plan = make_pipeline({PipelineSchedule::k1F1B, 3, 1, 2});
    for (PipelineStep& step : plan.ranks[0]) {
      step.peer = step.op == PipelineOp::kSendActivation ? 2 : step.peer;
    }
    CHECK(simulate(plan, {.stages = {{}}}).blocked.size() == 3);
  }
  SECTION("stages in turns need sends that do not wait") {
    CHECK_FALSE(run({PipelineSchedule::kInterleaved, 2, 2, 4}, {}, 0).blocked.empty());
    CHECK(run({PipelineSchedule::kInterleaved, 2, 2, 4}, {}, 1).blocked.empty());
    // NCCL_LAUNCH_ORDER_IMPLICIT would leave one (docs/notes/device-communication.md).
    CHECK_FALSE(run({PipelineSchedule::kInterleaved, 4, 2, 11}, {}, 1).blocked.empty());
    CHECK(run({PipelineSchedule::kInterleaved, 4, 2, 11}, {}, 2).blocked.empty());
  }
}

TEST_CASE("as many micro-batches are alive as the schedule says, and have slots", "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    const PipelinePlan plan = make_pipeline(shape);
    const PipelineTimeline timeline = simulate(plan, {.stages = {{}}});
    const std::int64_t p = shape.ranks;
    const std::int64_t v = shape.chunks;
    const std::int64_t m = shape.micro_batches;
    for (std::int64_t k = 0; k < p; ++k) {
      std::int64_t expected = std::min(p - k, m);  // 1F1B
      if (shape.schedule == PipelineSchedule::kGpipe) {
        expected = m;
      } else if (shape.schedule == PipelineSchedule::kZeroBubble) {
        expected = std::min(p, m);
      } else if (v > 1) {
        const std::int64_t groups = std::max<std::int64_t>(1, m / p);
        const std::int64_t group = (m + groups - 1) / groups;
        expected = std::min(2 * (p - k - 1) + (v - 1) * group + 1, m * v);
      }
      CAPTURE(enum_name(shape.schedule), p, v, m, k);
      CHECK(timeline.peak_in_flight[static_cast<std::size_t>(k)] == expected);
      CHECK(plan.slots[static_cast<std::size_t>(k)] == expected);
    }
  }
}

TEST_CASE("interleaved keeps 1 + (p - 1)/(p v) times as much alive as 1F1B", "[parallel][pipeline]") {
  for (int p = 2; p <= 8; ++p) {
    for (int v = 2; v <= 4; ++v) {
      const PipelinePlan plan = make_pipeline({PipelineSchedule::kInterleaved, p, v, 4 * p});
      CHECK(plan.slots[0] == p * v + p - 1);  // in units of 1/v of a rank's layers; 1F1B has p · v of them
    }
  }
}

TEST_CASE("gpipe and 1F1B take (m + p - 1)(F + B + W)", "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    if (shape.schedule != PipelineSchedule::kGpipe && shape.schedule != PipelineSchedule::k1F1B) {
      continue;
    }
    for (const StageDurations& d : kDurations) {
      const PipelineTimeline timeline = run(shape, d);
      const double one = d.forward + d.backward_input + d.backward_weight;
      const double bubble = (shape.ranks - 1) * one;
      CAPTURE(enum_name(shape.schedule), shape.ranks, shape.micro_batches);
      CHECK(std::abs(timeline.end() - ideal(shape, d) - bubble) < kRounding);
      const auto m = static_cast<double>(shape.micro_batches);
      CHECK(timeline.bubble_fraction() ==
            Approx((shape.ranks - 1) / (m + shape.ranks - 1)).margin(kRounding));
    }
  }
}

TEST_CASE("interleaved has a bubble v times smaller, where micro-batches divide by ranks",
          "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    if (shape.schedule != PipelineSchedule::kInterleaved || shape.micro_batches % shape.ranks != 0) {
      continue;
    }
    for (const StageDurations& d : kDurations) {  // of one chunk: 1/v of a rank's work
      const double bubble = (shape.ranks - 1) * (d.forward + d.backward_input + d.backward_weight);
      CAPTURE(shape.ranks, shape.chunks, shape.micro_batches);
      CHECK(std::abs(run(shape, d).end() - ideal(shape, d) - bubble) < kRounding);
    }
  }
}

TEST_CASE("zero bubble waits (p - 1)(F + B - W), given enough micro-batches and W of at most F",
          "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    if (shape.schedule != PipelineSchedule::kZeroBubble) {
      continue;
    }
    const PipelineShape plain{PipelineSchedule::k1F1B, shape.ranks, 1, shape.micro_batches};
    for (const StageDurations& d : kDurations) {
      const PipelineTimeline timeline = run(shape, d);
      CAPTURE(shape.ranks, shape.micro_batches, d.forward, d.backward_input, d.backward_weight);
      if (shape.micro_batches >= shape.ranks && d.backward_weight <= d.forward) {
        const double bubble = (shape.ranks - 1) * (d.forward + d.backward_input - d.backward_weight);
        CHECK(std::abs(timeline.end() - ideal(shape, d) - bubble) < kRounding);
      }
      CHECK(timeline.end() < run(plain, d).end() + kRounding);
    }
  }
}

TEST_CASE("a weight gradient really comes later where a rank would wait", "[parallel][pipeline]") {
  const PipelineTimeline timeline = run({PipelineSchedule::kZeroBubble, 4, 1, 8}, {1.0, 1.0, 1.0});
  for (std::size_t rank = 0; rank < 4; ++rank) {
    std::vector<std::size_t> input_at(8);
    const auto& steps = timeline.ranks[rank];
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto micro_batch = static_cast<std::size_t>(steps[i].step.micro_batch);
      if (steps[i].step.op == PipelineOp::kBackwardInput) {
        input_at[micro_batch] = i;
      } else if (steps[i].step.op == PipelineOp::kBackwardWeight && micro_batch + rank < 8) {
        // `rank` more input gradients were made in between.
        const auto between = std::count_if(
            steps.begin() + static_cast<std::ptrdiff_t>(input_at[micro_batch]) + 1,
            steps.begin() + static_cast<std::ptrdiff_t>(i),
            [](const auto& interval) { return interval.step.op == PipelineOp::kBackwardInput; });
        CHECK(between == static_cast<std::ptrdiff_t>(rank));
      }
    }
  }
}

TEST_CASE("messages take their time on the critical path", "[parallel][pipeline]") {
  // One micro-batch: forward to the last rank and back again, 2 (p - 1) messages in a row.
  const PipelineTimeline timeline =
      run({PipelineSchedule::k1F1B, 4, 1, 1}, {1.0, 1.0, 1.0}, SimulationOptions::kUnlimited, 0.25);
  CHECK(timeline.end() == Approx(4 * 3 + 2 * 3 * 0.25));
  CHECK(timeline.ranks[1][0].begin == Approx(1.25));
}

TEST_CASE("the slowest stage sets the pace", "[parallel][pipeline]") {
  const PipelinePlan plan = make_pipeline({PipelineSchedule::k1F1B, 3, 1, 10});
  const StageDurations slow{2.0, 2.0, 2.0};
  const PipelineTimeline timeline = simulate(plan, {.stages = {{}, slow, {}}});
  // It waits for one forward before, one turn (F + B + W, less its second forward) of the stage after, and
  // its last gradient goes back through the stage before.
  CHECK(timeline.end() == Approx(1 + 10 * 6 + (3 - 2) + 2));
  CHECK(timeline.bubble_fraction() == Approx(1.0 - 10 * (3 + 6 + 3) / (3 * timeline.end())));
}

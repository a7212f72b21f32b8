#include "caravan/parallel/pipeline_schedule.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <map>
#include <tuple>

#include "caravan/core/error.h"
#include "support/pipeline_shapes.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// "F0 F1 B0": the computations of a rank.
std::string computations(const PipelinePlan& plan, std::size_t rank) {
  std::string text;
  for (const PipelineStep& step : plan.ranks[rank]) {
    if (is_message(step.op)) {
      continue;
    }
    text += text.empty() ? "" : " ";
    text += step.op == PipelineOp::kForward ? 'F' : step.op == PipelineOp::kBackwardWeight ? 'W' : 'B';
    text += std::to_string(step.micro_batch);
    if (plan.shape.chunks > 1) {
      text += static_cast<char>('a' + plan.shape.chunk_of(step.stage));
    }
  }
  return text;
}

std::string all_of(const std::vector<std::string>& faults) {
  std::string text;
  for (const std::string& fault : faults) {
    text += fault + '\n';
  }
  return text;
}

}  // namespace

TEST_CASE("every schedule does every piece of work once and in a valid order", "[parallel][pipeline]") {
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    const PipelinePlan plan = make_pipeline(shape);
    CAPTURE(enum_name(shape.schedule), shape.ranks, shape.chunks, shape.micro_batches);
    REQUIRE(static_cast<int>(plan.ranks.size()) == shape.ranks);
    CHECK(all_of(find_pipeline_faults(plan)).empty());
  }
}

TEST_CASE("the schedules are those of the papers", "[parallel][pipeline]") {
  const PipelinePlan gpipe = make_pipeline({PipelineSchedule::kGpipe, 3, 1, 3});
  CHECK(computations(gpipe, 0) == "F0 F1 F2 B0 B1 B2");
  CHECK(computations(gpipe, 2) == "F0 F1 F2 B0 B1 B2");
  const PipelinePlan plain = make_pipeline({PipelineSchedule::k1F1B, 4, 1, 6});
  CHECK(computations(plain, 0) == "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5");
  CHECK(computations(plain, 2) == "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5");
  CHECK(computations(plain, 3) == "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5");
  const PipelinePlan interleaved = make_pipeline({PipelineSchedule::kInterleaved, 2, 2, 4});
  CHECK(computations(interleaved, 0) == "F0a F1a F0b F1b F2a B0b F3a B1b F2b B0a F3b B1a B2b B3b B2a B3a");
  CHECK(computations(interleaved, 1) == "F0a F1a F0b B0b F1b B1b F2a B0a F3a B1a F2b B2b F3b B3b B2a B3a");
  const PipelinePlan zero_bubble = make_pipeline({PipelineSchedule::kZeroBubble, 3, 1, 4});
  CHECK(computations(zero_bubble, 0) == "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3");
  CHECK(computations(zero_bubble, 1) == "F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3");
  CHECK(computations(zero_bubble, 2) == "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3");
}

TEST_CASE("with one stage per rank, interleaved is 1F1B", "[parallel][pipeline]") {
  for (std::int64_t micro_batches = 1; micro_batches <= 9; ++micro_batches) {
    CHECK(make_pipeline({PipelineSchedule::kInterleaved, 4, 1, micro_batches}).ranks ==
          make_pipeline({PipelineSchedule::k1F1B, 4, 1, micro_batches}).ranks);
  }
}

TEST_CASE("messages of one kind arrive in the order in which they were sent", "[parallel][pipeline]") {
  using Message = std::pair<int, std::int64_t>;  // receiving stage, micro-batch
  for (const PipelineShape& shape : all_pipeline_shapes()) {
    const PipelinePlan plan = make_pipeline(shape);
    std::map<std::tuple<bool, int, int>, std::vector<Message>> sent;
    std::map<std::tuple<bool, int, int>, std::vector<Message>> received;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      for (const PipelineStep& step : plan.ranks[static_cast<std::size_t>(rank)]) {
        if (step.op == PipelineOp::kSendActivation) {
          sent[{true, rank, step.peer}].emplace_back(step.stage + 1, step.micro_batch);
        } else if (step.op == PipelineOp::kSendGradient) {
          sent[{false, rank, step.peer}].emplace_back(step.stage - 1, step.micro_batch);
        } else if (is_message(step.op)) {
          received[{step.op == PipelineOp::kReceiveActivation, step.peer, rank}].emplace_back(
              step.stage, step.micro_batch);
        }
      }
    }
    CAPTURE(enum_name(shape.schedule), shape.ranks, shape.chunks, shape.micro_batches);
    CHECK(sent == received);
  }
}

TEST_CASE("a damaged list is found out", "[parallel][pipeline]") {
  const auto at = [](PipelinePlan& plan, std::size_t rank, PipelineOp op, std::int64_t micro_batch) {
    auto& list = plan.ranks[rank];
    return std::find_if(list.begin(), list.end(), [&](const PipelineStep& step) {
      return step.op == op && step.micro_batch == micro_batch;
    });
  };
  struct Case {
    std::string fault;
    std::function<void(PipelinePlan&)> damage;
  };
  const std::vector<Case> cases = {
      {"rank 1: micro-batch 2 in stage 1 is not finished\n",
       [&](auto& plan) { plan.ranks[1].erase(at(plan, 1, PipelineOp::kBackwardWeight, 2)); }},
      {"rank 1: forward of micro-batch 1 in stage 1: a second time\n",
       [&](auto& plan) {
         const auto step = at(plan, 1, PipelineOp::kForward, 1);
         plan.ranks[1].insert(step, *step);
       }},
      {"rank 1: forward of micro-batch 1 in stage 1: without input\n",
       [&](auto& plan) {
         std::iter_swap(at(plan, 1, PipelineOp::kForward, 1), at(plan, 1, PipelineOp::kReceiveActivation, 1));
       }},
      {"rank 0: send of the activation of micro-batch 0 in stage 0, to rank 1: before the forward\n",
       [&](auto& plan) {
         std::iter_swap(at(plan, 0, PipelineOp::kForward, 0), at(plan, 0, PipelineOp::kSendActivation, 0));
       }},
      {"rank 1: input gradient of micro-batch 0 in stage 1: without a gradient\n",
       [&](auto& plan) { plan.ranks[1].erase(at(plan, 1, PipelineOp::kReceiveGradient, 0)); }},
      {"rank 2: send of the gradient of micro-batch 0 in stage 2, to rank 1: before the backward\n",
       [&](auto& plan) {
         std::iter_swap(at(plan, 2, PipelineOp::kBackwardInput, 0),
                        at(plan, 2, PipelineOp::kSendGradient, 0));
       }},
      {"rank 1: send of the gradient of micro-batch 3 in stage 1, to rank 2: the wrong rank\n",
       [&](auto& plan) { at(plan, 1, PipelineOp::kSendGradient, 3)->peer = 2; }},
      {"rank 0: weight gradient of micro-batch 1 in stage 0: before the input gradient\n",
       [&](auto& plan) {
         std::iter_swap(at(plan, 0, PipelineOp::kBackwardInput, 1),
                        at(plan, 0, PipelineOp::kBackwardWeight, 1));
       }},
      {"rank 2: weight gradient of micro-batch 3 in stage 2: not in the order of micro-batches\n",
       [&](auto& plan) {
         std::iter_swap(at(plan, 2, PipelineOp::kBackwardWeight, 2),
                        at(plan, 2, PipelineOp::kBackwardWeight, 3));
       }},
      {"rank 1: forward of micro-batch 1 in stage 1: in a slot that is in use\n",
       [&](auto& plan) { at(plan, 1, PipelineOp::kForward, 1)->slot = 0; }},
      {"rank 1: weight gradient of micro-batch 1 in stage 1: without a forward in this slot\n",
       [&](auto& plan) { at(plan, 1, PipelineOp::kBackwardWeight, 1)->slot = 0; }},
      {"rank 1: forward of micro-batch 0 in stage 2: no such stage, micro-batch or slot here\n",
       [&](auto& plan) { at(plan, 1, PipelineOp::kForward, 0)->stage = 2; }},
  };
  for (const Case& one : cases) {
    PipelinePlan plan = make_pipeline({PipelineSchedule::kZeroBubble, 3, 1, 4});
    one.damage(plan);
    CHECK_THAT(all_of(find_pipeline_faults(plan)), Catch::Contains(one.fault));
  }
}

TEST_CASE("a list that hands over inside a rank is checked too", "[parallel][pipeline]") {
  PipelinePlan plan = make_pipeline({PipelineSchedule::kInterleaved, 1, 2, 2});
  CHECK(computations(plan, 0) == "F0a F0b B0b F1a B0a F1b B1b B1a");
  auto& list = plan.ranks[0];
  std::swap(list[0], list[1]);  // stage 1 before stage 0
  CHECK_THAT(all_of(find_pipeline_faults(plan)),
             Catch::Contains("rank 0: forward of micro-batch 0 in stage 1: without input"));
}

TEST_CASE("shapes without a schedule are refused with the remedy", "[parallel][pipeline]") {
  CHECK_THROWS_WITH(
      make_pipeline({PipelineSchedule::kZeroBubble, 4, 2, 8}),
      "the pipeline schedule zero_bubble has one stage per rank, not 2; use the schedule interleaved, or "
      "one stage per rank");
  CHECK_THROWS_AS(make_pipeline({PipelineSchedule::k1F1B, 4, 1, 0}), ConfigError);
  CHECK_THROWS_AS(make_pipeline({PipelineSchedule::kGpipe, 0, 1, 4}), ConfigError);
}

// Pipeline schedules as data: for each rank the list of what it does in one optimizer step. Pure functions of
// four numbers; no device, no communicator. docs/notes/pipeline.md shows the schedules.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/config/pipeline_kind.h"

namespace caravan {

/// `chunks` is how many stages a rank has: more than one is for the interleaved schedule.
struct PipelineShape {
  PipelineSchedule schedule = PipelineSchedule::k1F1B;
  int ranks = 1;
  int chunks = 1;
  std::int64_t micro_batches = 1;

  int stages() const { return ranks * chunks; }
  /// Stage s is chunk s div ranks of rank s mod ranks.
  int rank_of(int stage) const { return stage % ranks; }
  int chunk_of(int stage) const { return stage / ranks; }
};

enum class PipelineOp : std::uint8_t {
  kForward,
  kBackward,  // input and weight gradients together, segment by segment
  kBackwardInput,
  kBackwardWeight,
  kSendActivation,  // the output of this step's stage, to the next stage
  kReceiveActivation,
  kSendGradient,  // the gradient of this step's stage's input, to the stage before
  kReceiveGradient,
};

/// Consecutive messages of a list are one exchange: all are started together, and the rank goes on when what
/// it receives is there and what it sends may be left to itself. Messages of one kind from one rank to
/// another are received in the order in which they are sent. How many a rank must be able to leave on the way
/// so that no rank waits for ever is in docs/notes/pipeline.md.
struct PipelineStep {
  PipelineOp op = PipelineOp::kForward;
  std::int64_t micro_batch = 0;
  int stage = 0;
  int peer = -1;  // of a message: the other rank
  int slot = 0;   // where the rank keeps this (micro-batch, stage) from forward to the last of backward

  friend bool operator==(const PipelineStep&, const PipelineStep&) = default;
};

struct PipelinePlan {
  PipelineShape shape;
  std::vector<std::vector<PipelineStep>> ranks;
  std::vector<int> slots;  // by rank: most (micro-batch, stage) pairs alive at once
};

bool is_message(PipelineOp op);
/// "forward of micro-batch 3 in stage 2", "send of the gradient of micro-batch 3 from stage 2 to rank 1"
std::string describe(const PipelineStep& step);

/// The lists of all ranks. Per stage the micro-batches go forward in order, and so do the additions to its
/// weight gradients: every schedule gives the same bits. Between stages of one rank nothing is sent. Throws
/// ConfigError, naming the remedy, when the schedule does not exist for the shape.
PipelinePlan make_pipeline(const PipelineShape& shape);

/// The most slots that `rank` needs for any number of micro-batches up to that of `shape`.
int most_slots(const PipelineShape& shape, int rank);

/// What is wrong with the lists: every (micro-batch, stage) must go forward once, then backward once, weights
/// after inputs; have received before and send after; every message has one partner; slots are not shared.
/// Empty when all is right.
std::vector<std::string> find_pipeline_faults(const PipelinePlan& plan);

}  // namespace caravan

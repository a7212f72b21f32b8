// The learning rate of every local step of one rank: the schedule runs over the steps of all rounds, whatever
// the optimizer forgets between them.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/config/run_config.h"
#include "caravan/data/batch_loader.h"

namespace caravan {

class LocalSchedule {
 public:
  /// Finds out how many batches every epoch has: by arithmetic, or, when packing (where it depends on the
  /// lengths and their order) and unless the rate is always the same, by making all of them once. Moves
  /// `train`; seek before reading from it. Warns when the warm-up does not fit.
  LocalSchedule(const RunConfig& config, BatchLoader& train);

  /// Of batch `batch` (from 0) of `epoch` (from 0, counted over all rounds). Every batch is a step here, with
  /// targets or without.
  double lr(std::int64_t epoch, std::int64_t batch) const;

  /// The same batch's number in the run, from 1, another one for every batch: with packing, where epochs
  /// differ in length, some are left out.
  std::int64_t number(std::int64_t epoch, std::int64_t batch) const {
    return epoch * batches_per_epoch_ + batch + 1;
  }

  /// Most local steps a rank with `samples` samples can make in the run: exact without packing.
  static std::int64_t most_steps(const RunConfig& config, std::int64_t samples);

 private:
  OptimizerSection optimizer_;
  std::int64_t batches_per_epoch_ = 0;
  std::vector<std::int64_t> first_step_;  // when counted: steps before each epoch
  std::int64_t total_steps_ = 0;
};

}  // namespace caravan

#include "caravan/federated/local_schedule.h"

#include <limits>

#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "caravan/optim/schedule.h"

namespace caravan {
namespace {

/// a · b, or a number no run reaches when it does not fit.
std::int64_t product(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 4;
  std::int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) || result > kMost ? kMost : result;
}

std::int64_t epochs(const RunConfig& config) {
  return product(config.federated.rounds, config.federated.local_epochs);
}

}  // namespace

std::int64_t LocalSchedule::most_steps(const RunConfig& config, std::int64_t samples) {
  const std::int64_t batch = config.federated.batch_size;
  return product(epochs(config), (samples + batch - 1) / batch);
}

LocalSchedule::LocalSchedule(const RunConfig& config, BatchLoader& train)
    : optimizer_(config.optimizer),
      batches_per_epoch_(train.max_batches_per_epoch()),
      total_steps_(most_steps(config, train.samples())) {
  if (train.batches_per_epoch() || is_flat(optimizer_.schedule)) {
    return;
  }
  total_steps_ = 0;
  Batch batch;
  for (std::int64_t epoch = 0; epoch < epochs(config); ++epoch) {
    first_step_.push_back(total_steps_);
    train.start_epoch(epoch);
    while (train.next(batch)) {
      ++total_steps_;
    }
  }
  try {
    check_schedule(optimizer_.schedule, total_steps_);
  } catch (const ConfigError& error) {
    log::warning("{}", error.what());
  }
}

double LocalSchedule::lr(std::int64_t epoch, std::int64_t batch) const {
  const std::int64_t before =
      first_step_.empty() ? epoch * batches_per_epoch_ : first_step_.at(static_cast<std::size_t>(epoch));
  return scheduled_lr(optimizer_, before + batch + 1, total_steps_);
}

}  // namespace caravan

#include "caravan/data/sampler.h"

#include <algorithm>
#include <numeric>

#include "caravan/core/error.h"

namespace caravan {

SamplePart part_of(std::int64_t rank, std::int64_t ranks, std::int64_t samples) {
  CARAVAN_CHECK(ranks > 0 && rank >= 0 && rank < ranks, "rank {} of {}", rank, ranks);
  const std::int64_t each = samples / ranks;
  if (each == 0) {
    fail<ConfigError>(
        "data.train: {} samples cannot be divided among {} ranks; give more data or fewer ranks", samples,
        ranks);
  }
  return {rank * each, (rank + 1) * each, rank};
}

std::int64_t unused_samples(std::int64_t ranks, std::int64_t samples) {
  CARAVAN_CHECK(ranks > 0 && samples >= 0, "{} samples, {} ranks", samples, ranks);
  return samples % ranks;
}

ShuffleOrder::ShuffleOrder(const Key& key, std::int64_t count, std::int64_t buffer)
    : rng_(key.seed, stream_id(fmt::format("data.shuffle/part {}/epoch {}", key.part, key.epoch))),
      count_(count),
      next_sample_(std::min(count, buffer)),
      slots_(static_cast<std::size_t>(next_sample_)) {
  CARAVAN_CHECK(count >= 0 && buffer > 0, "{} samples, {} slots", count, buffer);
  std::iota(slots_.begin(), slots_.end(), std::int64_t{0});
}

bool ShuffleOrder::next(Step& step) {
  if (slots_.empty()) {
    return false;
  }
  const auto slot = static_cast<std::size_t>(rng_.below(steps_++, slots_.size()));
  step = {slots_[slot], static_cast<std::int64_t>(slot), -1};
  if (next_sample_ < count_) {
    step.refill = next_sample_++;
    slots_[slot] = step.refill;
  } else {
    slots_[slot] = slots_.back();
    slots_.pop_back();
  }
  return true;
}

}  // namespace caravan

// Which samples a rank trains on and in which order: pure functions of numbers, no data is touched here.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/core/counter_rng.h"

namespace caravan {

/// The contiguous samples [begin, end) that belong to one rank. The part belongs to the rank for the whole
/// run.
struct SamplePart {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t index = 0;  // the rank; enters the shuffle

  std::int64_t samples() const { return end - begin; }
};

/// Rank r of N gets samples [r·⌊n/N⌋, (r+1)·⌊n/N⌋). Throws ConfigError when there are fewer samples than
/// ranks.
SamplePart part_of(std::int64_t rank, std::int64_t ranks, std::int64_t samples);
/// Samples at the end that no rank trains on: n - N·⌊n/N⌋.
std::int64_t unused_samples(std::int64_t ranks, std::int64_t samples);

/// Streaming shuffle: `buffer` slots are filled with the first samples; each step gives out the sample of a
/// random slot, and the next sample takes its place (at the end: the last slot's sample does). A permutation
/// of [0, count), uniform over all when the buffer holds them all, and a function of (seed, part, epoch,
/// buffer, count) alone.
class ShuffleOrder {
 public:
  struct Key {
    std::uint64_t seed = 0;
    std::int64_t part = 0;
    std::int64_t epoch = 0;  // counted over all rounds
  };
  struct Step {
    std::int64_t sample = 0;  // given out
    std::int64_t slot = 0;    // where it was
    std::int64_t refill =
        -1;  // the sample that takes the slot; -1: the last slot's moves here and the buffer shrinks
  };

  ShuffleOrder(const Key& key, std::int64_t count, std::int64_t buffer);

  /// False when every sample has been given out.
  bool next(Step& step);
  /// The sample in each slot.
  const std::vector<std::int64_t>& slots() const { return slots_; }

 private:
  CounterRng rng_;
  std::int64_t count_;
  std::int64_t next_sample_;
  std::uint64_t steps_ = 0;
  std::vector<std::int64_t> slots_;
};

}  // namespace caravan

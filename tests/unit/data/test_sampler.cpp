#include "caravan/data/sampler.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "caravan/core/error.h"

using namespace caravan;

namespace {

std::vector<std::int64_t> order_of(const ShuffleOrder::Key& key, std::int64_t count, std::int64_t buffer) {
  ShuffleOrder order(key, count, buffer);
  ShuffleOrder::Step step;
  std::vector<std::int64_t> samples;
  while (order.next(step)) {
    samples.push_back(step.sample);
  }
  return samples;
}

std::vector<std::int64_t> counted(std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
  return numbers;
}

}  // namespace

TEST_CASE("each rank's part is contiguous and of equal size, the rest is unused", "[data][sampler]") {
  for (const std::int64_t samples : {4, 7, 64, 1001}) {
    for (const std::int64_t ranks : {1, 2, 3, 4}) {
      std::int64_t next = 0;
      for (std::int64_t rank = 0; rank < ranks; ++rank) {
        const SamplePart part = part_of(rank, ranks, samples);
        CHECK(part.begin == next);
        CHECK(part.samples() == samples / ranks);
        CHECK(part.index == rank);
        next = part.end;
      }
      CHECK(next + unused_samples(ranks, samples) == samples);
    }
  }
  CHECK_THROWS_AS(part_of(0, 4, 3), ConfigError);
}

TEST_CASE("the order is a permutation for every buffer", "[data][sampler]") {
  for (const std::int64_t count : {1, 2, 100, 1000}) {
    for (const std::int64_t buffer : {1, 2, 10, 999, 1000, 5000}) {
      auto samples = order_of({42, 1, 3}, count, buffer);
      if (buffer == 1) {
        CHECK(samples == counted(count));
      }
      std::sort(samples.begin(), samples.end());
      CHECK(samples == counted(count));
    }
  }
  CHECK(order_of({42, 0, 0}, 0, 10).empty());
}

TEST_CASE("the order depends on seed, part and epoch and on nothing else", "[data][sampler]") {
  const auto order = order_of({42, 1, 3}, 500, 500);
  CHECK(order == order_of({42, 1, 3}, 500, 500));
  CHECK(order == order_of({42, 1, 3}, 500, 8192));
  CHECK(order != order_of({43, 1, 3}, 500, 500));
  CHECK(order != order_of({42, 2, 3}, 500, 500));
  CHECK(order != order_of({42, 1, 4}, 500, 500));
  CHECK(order_of({42, 3, 1}, 500, 500) != order);
}

TEST_CASE("a sample is never given out more than a buffer ahead of its place", "[data][sampler]") {
  const auto order = order_of({1, 0, 0}, 5000, 64);
  for (std::size_t place = 0; place < order.size(); ++place) {
    REQUIRE(order[place] < static_cast<std::int64_t>(place) + 64);
  }
}

TEST_CASE("with a buffer for all every sample is equally likely at every place", "[data][sampler]") {
  constexpr int kCount = 8;
  constexpr int kEpochs = 16000;
  int seen[kCount][kCount] = {};
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const auto order = order_of({5, 0, epoch}, kCount, kCount);
    for (std::size_t place = 0; place < kCount; ++place) {
      ++seen[place][order[place]];
    }
  }
  // Binomial: mean 2000, standard deviation 42; six of them for 64 cells.
  for (const auto& place : seen) {
    for (const int count : place) {
      CHECK(std::abs(count - kEpochs / kCount) < 6 * 42);
    }
  }
}

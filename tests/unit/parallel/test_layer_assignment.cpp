#include "caravan/parallel/layer_assignment.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>

#include "caravan/core/error.h"

using namespace caravan;

namespace {

std::vector<std::int64_t> counts(std::int64_t layers, std::int64_t stages, const EndWeights& weights) {
  std::vector<std::int64_t> result;
  std::int64_t next = 0;
  for (const Range& range : assign_layers(layers, stages, weights)) {
    REQUIRE(range.begin == next);  // in order, without gaps
    next = range.end;
    result.push_back(range.end - range.begin);
  }
  REQUIRE(next == layers);
  return result;
}

double largest_load(const std::vector<std::int64_t>& layers, const EndWeights& weights) {
  double largest = 0.0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    largest = std::max(largest, static_cast<double>(layers[i]) + (i == 0 ? weights.embedding : 0.0) +
                                    (i + 1 == layers.size() ? weights.head : 0.0));
  }
  return largest;
}

/// The least possible largest load, by trying every assignment.
double best_load(std::int64_t layers, std::int64_t stages, const EndWeights& weights) {
  double best = 1e9;
  std::vector<std::int64_t> tried;
  const std::function<void(std::int64_t)> extend = [&](std::int64_t left) {
    const auto stages_left = stages - static_cast<std::int64_t>(tried.size());
    if (stages_left == 1) {
      tried.push_back(left);
      best = std::min(best, largest_load(tried, weights));
      tried.pop_back();
      return;
    }
    for (std::int64_t count = 1; count <= left - (stages_left - 1); ++count) {
      tried.push_back(count);
      extend(left - count);
      tried.pop_back();
    }
  };
  extend(layers);
  return best;
}

}  // namespace

TEST_CASE("layers are spread evenly, the odd ones to the first stages", "[parallel][layers]") {
  using Counts = std::vector<std::int64_t>;
  CHECK(counts(8, 4, {}) == Counts{2, 2, 2, 2});
  CHECK(counts(10, 4, {}) == Counts{3, 3, 2, 2});
  CHECK(counts(5, 1, {1.0, 1.0}) == Counts{5});
  // Both ends counted as a layer: 405B's 126 layers on 16 stages were chosen for this.
  Counts expected(16, 8);
  expected.front() = expected.back() = 7;
  CHECK(counts(126, 16, {1.0, 1.0}) == expected);
  CHECK(counts(10, 4, {1.0, 1.0}) == Counts{2, 3, 3, 2});
  CHECK(counts(11, 4, {1.0, 1.0}) == Counts{3, 3, 3, 2});
}

TEST_CASE("no assignment has a smaller largest load", "[parallel][layers]") {
  for (std::int64_t stages = 1; stages <= 5; ++stages) {
    for (std::int64_t layers = stages; layers <= 12; ++layers) {
      for (const EndWeights& weights : {EndWeights{}, EndWeights{1.0, 1.0}, EndWeights{0.0, 4.3},
                                        EndWeights{0.4, 0.7}, EndWeights{9.0, 0.0}}) {
        CAPTURE(stages, layers, weights.embedding, weights.head);
        CHECK(largest_load(counts(layers, stages, weights), weights) ==
              Approx(best_load(layers, stages, weights)));
      }
    }
  }
}

TEST_CASE("the head of a small model is several layers", "[parallel][layers]") {
  const EndWeights small = end_weights(*model_preset("llama3.2-1b"));
  CHECK(small.head == Approx(4.32).epsilon(0.01));
  CHECK(small.embedding == 0.0);
  CHECK(end_weights(*model_preset("llama3.1-70b")).head == Approx(1.228).epsilon(0.01));
  CHECK(counts(16, 4, small) == std::vector<std::int64_t>{5, 5, 5, 1});
}

TEST_CASE("fewer layers than stages are refused with the remedy", "[parallel][layers]") {
  CHECK_THROWS_WITH(
      assign_layers(2, 4, {}),
      "a pipeline of 4 stages needs as many layers, the model has 2; use at most 2 stages: lower "
      "parallel.pp or the stages per rank");
  CHECK(counts(4, 4, {0.0, 4.3}) == std::vector<std::int64_t>{1, 1, 1, 1});
}

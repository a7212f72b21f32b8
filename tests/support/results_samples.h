// A small run's results for tests.
#pragma once

#include <cmath>
#include <cstdint>

#include "caravan/io/results_file.h"

namespace caravan::test {

inline RunAttributes sample_attributes() {
  RunAttributes attributes;
  attributes.experiment = {4, 1e-5, true, 5, 2, "sums", 42};
  attributes.mode = "federated";
  attributes.dtype = "float32";
  attributes.config = "mode: federated\nseed: 42  # größer\n";
  attributes.commit = "0123abc";
  attributes.versions = "caravan 0.1.0\nhdf5 1.10.8";
  attributes.hosts = "node1,node2";
  attributes.start_time = "2031-05-04T18:30:05Z";
  return attributes;
}

inline StepRecord sample_step(std::int64_t step) {
  const auto x = static_cast<double>(step);
  return {step, 4.0 / x, 1e-5 * x, 1.0 / (x + 1.0), 1000 + step, 0.25 * x};
}

inline HistoryRecord sample_evaluation(std::int64_t round) {
  const double loss = 3.0 / (1.0 + static_cast<double>(round));
  return {round, loss, std::exp(loss)};
}

}  // namespace caravan::test

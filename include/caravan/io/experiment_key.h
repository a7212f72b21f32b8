// What makes two runs the same experiment; results and checkpoints carry it.
#pragma once

#include <cstdint>
#include <string>

namespace caravan {

struct ExperimentKey {
  std::int64_t world_size = 1;
  double lr = 0.0;
  bool enable_swapping = false;
  std::int64_t rounds = 0;
  std::int64_t local_epochs = 0;
  std::string dataset;  // data.name, or the stem of the first data.train path
  std::int64_t seed = 0;

  friend bool operator==(const ExperimentKey&, const ExperimentKey&) = default;
};

}  // namespace caravan

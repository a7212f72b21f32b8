// What the regression tests of other systems' failures share: one tiny model in float64, on a mesh and alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "caravan/comm/mpi_session.h"
#include "tests/support/one_rank_reference.h"

namespace caravan::test {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kLongest = 21;
constexpr double kTolerance = 1e-10;  // float64: sums in another order

inline Communicator& world() {
  return MpiSession::current().world();
}

inline RunConfig config_of(const ParallelSection& parallel, std::int64_t micro_batch = 1) {
  RunConfig config = mesh_config(parallel, DType::kFloat64, kRows, kLongest);
  config.training.clip_norm = std::nullopt;
  config.training.micro_batch = micro_batch;
  return config;
}

/// Loss and gradients of one batch by every rank alone.
inline MeshGradients alone(const Batch& batch, const ModelConfig& model) {
  SelfCommunicator self;
  return MeshRun(self, config_of({.dp_shard = 1}, kRows), model).gradients(batch);
}

inline void check_close(double value, double expected) {
  check_close(value, expected, kTolerance);
}

/// Loss and every gradient, which the first rank has.
inline void check_equal(const MeshGradients& gradients, const MeshGradients& expected) {
  check_close(gradients.loss, expected.loss);
  CHECK(gradients.values.size() == (world().rank() == 0 ? expected.values.size() : 0));
  for (const auto& [name, values] : gradients.values) {
    CAPTURE(name);
    CHECK(relative_difference(values, expected.values.at(name)) <= kTolerance);
  }
}

/// Rows of `lengths` targets, padded to the longest.
inline Batch batch_of(const std::vector<std::int64_t>& lengths) {
  std::vector<TokenRow> rows;
  for (const std::int64_t length : lengths) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i <= length; ++i) {
      ids.push_back(static_cast<std::int32_t>((i * 37 + static_cast<std::int64_t>(rows.size()) * 11) % 251));
    }
    rows.emplace_back().append_document(ids);
  }
  return make_batch(rows, 0);
}

inline double norm_of(const MeshGradients& gradients) {
  double squares = 0.0;
  for (const auto& [name, values] : gradients.values) {
    for (const double value : values) {
      squares += value * value;
    }
  }
  return std::sqrt(squares);
}

}  // namespace caravan::test

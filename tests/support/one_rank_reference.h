// What a mesh must compute: the same steps by one rank alone.
#pragma once

#include <catch2/catch.hpp>
#include <cstddef>
#include <functional>
#include <vector>

#include "tests/support/mesh_runs.h"

namespace caravan::test {

/// Steps of the same batches on any layout.
struct MeshTask {
  ModelConfig model;
  std::function<Batch(std::int64_t)> batch;  // by number
  int steps = 20;
  double lr = 1e-3;
};

struct OneRankReference {
  MeshGradients gradients;         // of batch 0; values on rank 0 only
  std::vector<double> losses;      // of every step
  std::vector<double> grad_norms;  // before clipping
  double held_out_loss_sum = 0.0;  // after the last step
};

constexpr std::int64_t kHeldOutBatch = 1000;

/// Computed by rank 0 with `config`, that of one rank; the others wait for its numbers instead of repeating
/// them. Collective.
inline OneRankReference one_rank_reference(Communicator& world, const RunConfig& config,
                                           const MeshTask& task) {
  const auto steps = static_cast<std::size_t>(task.steps);
  OneRankReference reference;
  std::vector<double> numbers(2 * steps + 2);
  if (world.rank() == 0) {
    SelfCommunicator self;
    MeshRun run(self, config, task.model);
    reference.gradients = run.gradients(task.batch(0));
    numbers[2 * steps] = reference.gradients.loss;
    for (std::size_t step = 0; step < steps; ++step) {
      const StepResult result = run->step(task.batch(static_cast<std::int64_t>(step)), task.lr);
      numbers[step] = result.loss;
      numbers[steps + step] = result.grad_norm;
    }
    numbers[2 * steps + 1] = run->loss_sum(task.batch(kHeldOutBatch));
  }
  world.broadcast(TensorView(numbers.data(), DType::kFloat64, {static_cast<std::int64_t>(numbers.size())}),
                  0);
  const auto middle = numbers.begin() + task.steps;
  reference.losses.assign(numbers.begin(), middle);
  reference.grad_norms.assign(middle, middle + task.steps);
  reference.gradients.loss = numbers[2 * steps];
  reference.held_out_loss_sum = numbers[2 * steps + 1];
  return reference;
}

inline void check_close(double value, double expected, double relative) {
  CHECK(std::abs(value - expected) <= relative * std::abs(expected));
}

/// Holds the layout `config` to `reference`: the first loss and every gradient, every step, the held-out
/// loss. Every rank knows all numbers but the gradients, which rank 0 has. Collective.
inline void check_against_one_rank(Communicator& world, const RunConfig& config, const MeshTask& task,
                                   const OneRankReference& reference) {
  const double tolerance = mesh_tolerance(config.dtype);
  MeshRun run(world, config, task.model);
  const MeshGradients gradients = run.gradients(task.batch(0));
  check_close(gradients.loss, reference.gradients.loss, tolerance);
  CHECK(gradients.values.size() == reference.gradients.values.size());
  for (const auto& [name, values] : reference.gradients.values) {
    CAPTURE(name);
    CHECK(relative_difference(gradients.values.at(name), values) <= tolerance);
  }
  for (int step = 0; step < task.steps; ++step) {
    CAPTURE(step);
    const Batch batch = task.batch(step);
    const StepResult result = run->step(batch, task.lr);
    check_close(result.loss, reference.losses.at(static_cast<std::size_t>(step)), tolerance);
    // A norm is a sum over all gradients; twenty updates apart, its rounding is some steps' together.
    check_close(result.grad_norm, reference.grad_norms.at(static_cast<std::size_t>(step)), 10 * tolerance);
    CHECK(result.tokens == batch.valid_tokens);
  }
  check_close(run->loss_sum(task.batch(kHeldOutBatch)), reference.held_out_loss_sum, tolerance);
}

}  // namespace caravan::test

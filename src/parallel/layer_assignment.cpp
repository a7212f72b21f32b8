#include "caravan/parallel/layer_assignment.h"

#include <algorithm>

#include "caravan/core/error.h"

namespace caravan {

EndWeights end_weights(const ModelConfig& model) {
  const auto hidden = static_cast<double>(model.hidden_size);
  const auto heads = static_cast<double>((2 * model.n_heads + 2 * model.n_kv_heads) * model.head_dim);
  const double layer = hidden * (heads + 3.0 * static_cast<double>(model.intermediate_size));
  return {.embedding = 0.0, .head = static_cast<double>(model.vocab_size) * hidden / layer};
}

std::vector<Range> assign_layers(std::int64_t layers, std::int64_t stages, const EndWeights& weights) {
  CARAVAN_CHECK(stages >= 1, "{} stages", stages);
  if (layers < stages) {
    fail<ConfigError>(
        "a pipeline of {} stages needs as many layers, the model has {}; use at most {} stages: lower "
        "parallel.pp "
        "or the stages per rank",
        stages, layers, layers);
  }
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), 1);
  std::vector<double> loads(counts.size(), 1.0);
  loads.front() += weights.embedding;
  loads.back() += weights.head;
  // One layer at a time to the stage that has least: no other way has a smaller maximum.
  for (std::int64_t left = layers - stages; left > 0; --left) {
    const auto lightest = std::min_element(loads.begin(), loads.end());
    *lightest += 1.0;
    ++counts[static_cast<std::size_t>(lightest - loads.begin())];
  }
  std::vector<Range> ranges;
  std::int64_t begin = 0;
  for (const std::int64_t count : counts) {
    ranges.push_back({begin, begin + count});
    begin += count;
  }
  return ranges;
}

}  // namespace caravan

// Which layers each stage of a pipeline has.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

/// Work of the two ends of the model, in layers.
struct EndWeights {
  double embedding = 0.0;
  double head = 0.0;
};

/// By multiplications per token, attention left out: a look-up has none; the head has V·D against the matrix
/// elements of a layer, which for small models is several layers.
EndWeights end_weights(const ModelConfig& model);

/// Layers [begin, end) of each stage, in order. The first stage also has the embedding, the last the head;
/// each has at least one layer, the most loaded stage has as little as possible, and among stages that could
/// take the odd layer the earlier ones do. Throws ConfigError when there are fewer layers than stages.
std::vector<Range> assign_layers(std::int64_t layers, std::int64_t stages, const EndWeights& weights);

}  // namespace caravan

// Models in Meta's layout for several ranks: files consolidated.NN.pth, each with one part of every large
// tensor. Column-parallel tensors (wq, wk, wv, w1, w3), the embedding and the output are cut along dim 0,
// row-parallel ones (wo, w2) along dim 1, norms are whole in every file. open_checkpoint merges them again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/core/shard_spec.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/llama_names.h"
#include "caravan/io/tensor_source.h"

namespace caravan {

/// Meta's loader wants equal parts of whole heads: ConfigError, naming the sizes that do not divide and the
/// numbers that would do, unless `parts` divides heads, kv heads, intermediate size and vocabulary.
void check_meta_parts(const ModelConfig& config, std::int64_t parts);

/// What file `part` of `parts` holds of a tensor.
Region meta_part(const TensorInfo& tensor, std::int64_t part, std::int64_t parts);

/// As tensor_sources, for one file: the sources have the shapes of its parts.
std::vector<TensorSource> part_sources(const CheckpointReader& reader, std::optional<DType> dtype,
                                       std::int64_t part, std::int64_t parts);

}  // namespace caravan

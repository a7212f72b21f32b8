// Checkpoint helpers of the tests: whole tensors in memory, and sources that write them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/io/checkpoint_reader.h"
#include "caravan/io/tensor_source.h"

namespace caravan::test {

/// Every tensor of a checkpoint by name, as float64.
std::map<std::string, std::vector<double>> read_all(const CheckpointReader& reader);

/// The parameters of `config` in float32; element i of the k-th tensor is k + i / 1024.
std::vector<TensorSource> numbered_sources(const ModelConfig& config);

/// Names of what is in a folder, sorted.
std::vector<std::string> file_names(const std::filesystem::path& folder);

}  // namespace caravan::test

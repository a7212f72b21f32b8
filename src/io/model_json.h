// What reading params.json and config.json share.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "caravan/config/model_config.h"

namespace caravan {

inline constexpr std::int64_t kMaxModelJsonBytes = std::int64_t{4} << 20U;

/// IoError that lists everything impossible about the shape; a vocab_size of 0 (left to the tokenizer)
/// passes.
void check_model_shape(const ModelConfig& config, const std::string& path);

/// Puts the user's factor in the place of the file's; ConfigError when the model has no scaling.
void apply_scaling_factor(ModelConfig& config, std::optional<double> factor, const std::string& path);

ModelConfig parse_params_json(const nlohmann::json& object, const std::string& path,
                              std::optional<double> rope_scaling_factor);
ModelConfig parse_hf_config(const nlohmann::json& object, const std::string& path,
                            std::optional<double> rope_scaling_factor);

}  // namespace caravan

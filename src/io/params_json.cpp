#include "caravan/io/params_json.h"

#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <set>
#include <string_view>

#include "caravan/config/model_limits.h"
#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/core/log.h"
#include "json_file.h"
#include "model_json.h"

namespace caravan {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kDefaultMultipleOf = 256;
constexpr std::int64_t kMaxPositionScaled = 131072;
constexpr std::int64_t kMaxPositionPlain = 8192;

std::int64_t default_max_position(const ModelConfig& config) {
  return config.rope_scaling ? kMaxPositionScaled : kMaxPositionPlain;
}

/// Meta's code has 8 for every model; the 3.2 text models were trained with 32 (llama-models issues 166,
/// 241).
double default_scaling_factor(std::int64_t hidden_size) {
  return hidden_size == 2048 || hidden_size == 3072 ? 32.0 : 8.0;
}

/// Keys beyond Meta's own are ours, written only where a model differs from all of Meta's.
const std::set<std::string>& known_keys() {
  static const std::set<std::string> keys = {"dim",
                                             "n_layers",
                                             "n_heads",
                                             "n_kv_heads",
                                             "vocab_size",
                                             "multiple_of",
                                             "ffn_dim_multiplier",
                                             "norm_eps",
                                             "rope_theta",
                                             "use_scaled_rope",
                                             "rope_scaling_factor",
                                             "head_dim",
                                             "rope_low_freq_factor",
                                             "rope_high_freq_factor",
                                             "rope_original_max_position",
                                             "max_position"};
  return keys;
}

void check_keys(const nlohmann::json& object, const std::string& path) {
  std::vector<std::string> ignored;
  for (const auto& [key, value] : object.items()) {
    if (key == "lora_args" || key == "quantization_args" || key.starts_with("vision_")) {
      fail<IoError>("{}: '{}' names a quantised or vision variant, which is not supported", path,
                    excerpt(key));
    }
    if (!known_keys().contains(key)) {
      ignored.push_back(excerpt(key));
    }
  }
  if (!ignored.empty()) {
    log::info("{}: keys not used: {}", path, fmt::join(ignored, ", "));
  }
}

std::optional<RopeScaling> read_scaling(const JsonFields& fields, std::int64_t hidden_size) {
  if (!fields.boolean("use_scaled_rope").value_or(false)) {
    return std::nullopt;
  }
  RopeScaling scaling;
  scaling.factor = fields.positive_or("rope_scaling_factor", default_scaling_factor(hidden_size));
  scaling.low_freq_factor = fields.positive_or("rope_low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = fields.positive_or("rope_high_freq_factor", scaling.high_freq_factor);
  scaling.original_max_position =
      fields.size_or("rope_original_max_position", scaling.original_max_position, kMaxVocab);
  return scaling;
}

}  // namespace

void check_model_shape(const ModelConfig& config, const std::string& path) {
  ModelConfig known = config;
  known.vocab_size = config.vocab_size == 0 ? 1 : config.vocab_size;
  const std::vector<std::string> problems = find_problems(known);
  if (!problems.empty()) {
    fail<IoError>("{}: {}", path, fmt::join(problems, "; "));
  }
}

void apply_scaling_factor(ModelConfig& config, std::optional<double> factor, const std::string& path) {
  if (!factor) {
    return;
  }
  if (!config.rope_scaling) {
    fail<ConfigError>("rope_scaling_factor is {}, but {} has no frequency scaling; leave it out", *factor,
                      path);
  }
  config.rope_scaling->factor = *factor;
}

std::int64_t meta_intermediate_size(std::int64_t hidden_size, std::optional<double> ffn_dim_multiplier,
                                    std::int64_t multiple_of) {
  double width = std::floor(static_cast<double>(8 * hidden_size) / 3);
  if (ffn_dim_multiplier) {
    width = std::floor(*ffn_dim_multiplier * width);
  }
  if (!(width >= 1) || width > 0x1p40 || multiple_of < 1) {
    fail<IoError>("ffn_dim_multiplier {} and multiple_of {} give no possible width for dim {}",
                  ffn_dim_multiplier.value_or(1.0), multiple_of, hidden_size);
  }
  return (static_cast<std::int64_t>(width) + multiple_of - 1) / multiple_of * multiple_of;
}

FfnRule find_ffn_rule(std::int64_t hidden_size, std::int64_t intermediate_size) {
  const std::int64_t largest_power = intermediate_size & -intermediate_size;
  const std::int64_t multiple_of = std::min(largest_power, kDefaultMultipleOf);
  const auto gives = [&](const FfnRule& rule) {
    const double width =
        std::floor(rule.multiplier.value_or(1.0) * std::floor(static_cast<double>(8 * hidden_size) / 3));
    return width >= 1 &&
           meta_intermediate_size(hidden_size, rule.multiplier, rule.multiple_of) == intermediate_size;
  };
  if (const FfnRule plain{std::nullopt, multiple_of}; gives(plain)) {
    return plain;
  }
  const double ratio =
      static_cast<double>(intermediate_size) / std::floor(static_cast<double>(8 * hidden_size) / 3);
  double scale = 10;
  for (int digits = 1; digits <= 12; ++digits, scale *= 10) {
    for (const double rounded : {std::floor(ratio * scale), std::ceil(ratio * scale)}) {
      if (const FfnRule rule{rounded / scale, multiple_of}; gives(rule)) {
        return rule;
      }
    }
  }
  fail<InternalError>("no ffn_dim_multiplier gives {} for dim {}", intermediate_size, hidden_size);
}

ModelConfig parse_params_json(const nlohmann::json& file_object, const std::string& path,
                              std::optional<double> rope_scaling_factor) {
  const auto wrapped = file_object.find("model");
  const bool is_wrapped = wrapped != file_object.end() && wrapped->is_object();
  const nlohmann::json& object = is_wrapped ? *wrapped : file_object;
  check_keys(object, path);
  const JsonFields fields(object, path);
  ModelConfig config;
  config.hidden_size = fields.required_size("dim", kMaxWidth);
  config.n_layers = fields.required_size("n_layers", kMaxLayers);
  config.n_heads = fields.required_size("n_heads", kMaxWidth);
  config.n_kv_heads = fields.size_or("n_kv_heads", config.n_heads, kMaxWidth);
  config.vocab_size =
      fields.integer("vocab_size").value_or(-1) == -1 ? 0 : fields.required_size("vocab_size", kMaxVocab);
  if (fields.find("head_dim") == nullptr && config.hidden_size % config.n_heads != 0) {
    fail<IoError>("{}: dim {} is not a multiple of n_heads {}", path, config.hidden_size, config.n_heads);
  }
  config.head_dim = fields.size_or("head_dim", config.hidden_size / config.n_heads, kMaxWidth);
  const std::int64_t multiple_of = fields.size_or("multiple_of", kDefaultMultipleOf, kMaxIntermediate);
  const std::optional<double> multiplier = fields.number("ffn_dim_multiplier");
  try {
    config.intermediate_size = meta_intermediate_size(config.hidden_size, multiplier, multiple_of);
  } catch (const IoError& error) {
    fail<IoError>("{}: {}", path, error.what());
  }
  if (config.intermediate_size > kMaxIntermediate) {
    fail<IoError>(
        "{}: dim {}, ffn_dim_multiplier and multiple_of give an MLP of width {}; it must be at most {}", path,
        config.hidden_size, config.intermediate_size, kMaxIntermediate);
  }
  config.rms_norm_eps = fields.positive_or("norm_eps", 1e-5);
  config.rope_theta = fields.positive_or("rope_theta", 500000.0);
  config.rope_scaling = read_scaling(fields, config.hidden_size);
  apply_scaling_factor(config, rope_scaling_factor, path);
  config.max_position = fields.size_or("max_position", default_max_position(config), kMaxVocab);
  check_model_shape(config, path);
  return config;
}

ModelConfig read_params_json(const std::string& path, std::optional<double> rope_scaling_factor) {
  return parse_params_json(read_json_object(path, kMaxModelJsonBytes), path, rope_scaling_factor);
}

std::string to_params_json(const ModelConfig& config) {
  const FfnRule rule = find_ffn_rule(config.hidden_size, config.intermediate_size);
  ordered_json object;
  object["dim"] = config.hidden_size;
  object["n_layers"] = config.n_layers;
  object["n_heads"] = config.n_heads;
  object["n_kv_heads"] = config.n_kv_heads;
  object["vocab_size"] = config.vocab_size;
  if (rule.multiplier) {
    object["ffn_dim_multiplier"] = *rule.multiplier;
  }
  object["multiple_of"] = rule.multiple_of;
  object["norm_eps"] = config.rms_norm_eps;
  object["rope_theta"] = config.rope_theta;
  object["use_scaled_rope"] = config.rope_scaling.has_value();
  if (config.head_dim * config.n_heads != config.hidden_size) {
    object["head_dim"] = config.head_dim;
  }
  if (config.rope_scaling) {
    const RopeScaling usual;
    const RopeScaling& scaling = *config.rope_scaling;
    object["rope_scaling_factor"] = scaling.factor;
    if (scaling.low_freq_factor != usual.low_freq_factor) {
      object["rope_low_freq_factor"] = scaling.low_freq_factor;
    }
    if (scaling.high_freq_factor != usual.high_freq_factor) {
      object["rope_high_freq_factor"] = scaling.high_freq_factor;
    }
    if (scaling.original_max_position != usual.original_max_position) {
      object["rope_original_max_position"] = scaling.original_max_position;
    }
  }
  if (config.max_position != default_max_position(config)) {
    object["max_position"] = config.max_position;
  }
  return object.dump(1) + "\n";
}

ModelConfig read_model_config(const std::string& path, std::optional<double> rope_scaling_factor) {
  const nlohmann::json object = read_json_object(path, kMaxModelJsonBytes);
  return object.contains("hidden_size") ? parse_hf_config(object, path, rope_scaling_factor)
                                        : parse_params_json(object, path, rope_scaling_factor);
}

}  // namespace caravan

#include <nlohmann/json.hpp>

#include "caravan/config/model_limits.h"
#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/io/params_json.h"
#include "json_file.h"
#include "model_json.h"

namespace caravan {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::int64_t kLlama3Vocab = 128256;  // the ids of its special tokens follow from it

void refuse_variants(const JsonFields& fields, const json& object, const std::string& path) {
  if (const auto type = fields.text("model_type"); type && *type != "llama") {
    fail<IoError>("{}: model_type is '{}'; only 'llama' is read", path, excerpt(*type));
  }
  if (const auto activation = fields.text("hidden_act"); activation && *activation != "silu") {
    fail<IoError>("{}: hidden_act is '{}'; only 'silu' is read", path, excerpt(*activation));
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (fields.boolean(key).value_or(false)) {
      fail<IoError>("{}: '{}' is true; models with biases are not supported", path, key);
    }
  }
  if (fields.find("quantization_config") != nullptr) {
    fail<IoError>("{}: 'quantization_config' is {}; quantised files are not supported", path,
                  excerpt(object["quantization_config"].dump()));
  }
}

/// rope_scaling (transformers 4) or rope_parameters (transformers 5) with rope_type "llama3" or none.
std::optional<RopeScaling> read_scaling(const json& object, const std::string& path) {
  if (!object.is_object()) {
    fail<IoError>("{}: rope scaling is {}, not an object", path, excerpt(object.dump()));
  }
  const JsonFields fields(object, path);
  const std::string type = fields.text("rope_type").value_or(fields.text("type").value_or("default"));
  if (type == "default") {
    return std::nullopt;
  }
  if (type != "llama3") {
    fail<IoError>("{}: rope_type '{}' is not supported; 'llama3' and 'default' are", path, excerpt(type));
  }
  if (fields.number("partial_rotary_factor").value_or(1.0) != 1.0) {
    fail<IoError>("{}: partial_rotary_factor other than 1 is not supported", path);
  }
  if (!fields.number("factor")) {
    fail<IoError>("{}: the rope scaling has no 'factor'", path);
  }
  RopeScaling scaling;
  scaling.factor = fields.positive_or("factor", scaling.factor);
  scaling.low_freq_factor = fields.positive_or("low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = fields.positive_or("high_freq_factor", scaling.high_freq_factor);
  scaling.original_max_position =
      fields.size_or("original_max_position_embeddings", scaling.original_max_position, kMaxVocab);
  return scaling;
}

}  // namespace

ModelConfig parse_hf_config(const json& object, const std::string& path,
                            std::optional<double> rope_scaling_factor) {
  const JsonFields fields(object, path);
  refuse_variants(fields, object, path);
  ModelConfig config;
  config.hidden_size = fields.required_size("hidden_size", kMaxWidth);
  config.intermediate_size = fields.required_size("intermediate_size", kMaxIntermediate);
  config.n_layers = fields.required_size("num_hidden_layers", kMaxLayers);
  config.n_heads = fields.required_size("num_attention_heads", kMaxWidth);
  config.n_kv_heads = fields.size_or("num_key_value_heads", config.n_heads, kMaxWidth);
  config.vocab_size = fields.required_size("vocab_size", kMaxVocab);
  if (fields.find("head_dim") == nullptr && config.hidden_size % config.n_heads != 0) {
    fail<IoError>("{}: hidden_size {} is not a multiple of num_attention_heads {}", path, config.hidden_size,
                  config.n_heads);
  }
  config.head_dim = fields.size_or("head_dim", config.hidden_size / config.n_heads, kMaxWidth);
  config.rms_norm_eps = fields.positive_or("rms_norm_eps", 1e-6);  // transformers' default
  const json* rope = fields.find("rope_parameters");
  rope = rope == nullptr ? fields.find("rope_scaling") : rope;
  double theta = fields.positive_or("rope_theta", 10000.0);
  if (rope != nullptr) {
    config.rope_scaling = read_scaling(*rope, path);
    theta = JsonFields(*rope, path).positive_or("rope_theta", theta);
  }
  config.rope_theta = theta;
  config.tie_embeddings = fields.boolean("tie_word_embeddings").value_or(false);
  config.max_position = fields.size_or("max_position_embeddings", 2048, kMaxVocab);
  apply_scaling_factor(config, rope_scaling_factor, path);
  check_model_shape(config, path);
  return config;
}

ModelConfig read_hf_config(const std::string& path, std::optional<double> rope_scaling_factor) {
  return parse_hf_config(read_json_object(path, kMaxModelJsonBytes), path, rope_scaling_factor);
}

std::string to_hf_config(const ModelConfig& config, DType dtype) {
  ordered_json object;
  object["architectures"] = {"LlamaForCausalLM"};
  object["model_type"] = "llama";
  object["hidden_size"] = config.hidden_size;
  object["intermediate_size"] = config.intermediate_size;
  object["num_hidden_layers"] = config.n_layers;
  object["num_attention_heads"] = config.n_heads;
  object["num_key_value_heads"] = config.n_kv_heads;
  object["head_dim"] = config.head_dim;
  object["vocab_size"] = config.vocab_size;
  object["max_position_embeddings"] = config.max_position;
  object["rms_norm_eps"] = config.rms_norm_eps;
  object["rope_theta"] = config.rope_theta;
  object["rope_scaling"] = nullptr;
  if (config.rope_scaling) {
    // Doubles print with ".0", which transformers insists on for the three factors.
    object["rope_scaling"] = {
        {"factor", config.rope_scaling->factor},
        {"low_freq_factor", config.rope_scaling->low_freq_factor},
        {"high_freq_factor", config.rope_scaling->high_freq_factor},
        {"original_max_position_embeddings", config.rope_scaling->original_max_position},
        {"rope_type", "llama3"}};
  }
  object["tie_word_embeddings"] = config.tie_embeddings;
  object["hidden_act"] = "silu";
  object["attention_bias"] = false;
  object["mlp_bias"] = false;
  object["attention_dropout"] = 0.0;
  object["initializer_range"] = 0.02;
  object["pretraining_tp"] = 1;
  object["use_cache"] = true;
  const bool has_llama_ids = config.vocab_size == kLlama3Vocab;
  object["bos_token_id"] = has_llama_ids ? ordered_json(128000) : ordered_json(nullptr);
  object["eos_token_id"] = has_llama_ids ? ordered_json(128001) : ordered_json(nullptr);
  object["torch_dtype"] = std::string(dtype_name(dtype));
  object["transformers_version"] = "4.45.0";  // the first that knows every key above
  return object.dump(2) + "\n";
}

}  // namespace caravan

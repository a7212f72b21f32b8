#include "caravan/config/model_config.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>
#include <utility>

#include "caravan/config/model_limits.h"

namespace caravan {
namespace {

void check_size(std::vector<std::string>& problems, std::string_view name, std::int64_t value,
                std::int64_t limit) {
  if (value < 1 || value > limit) {
    problems.push_back(fmt::format("{} is {}; it must be from 1 to {}", name, value, limit));
  }
}

void check_positive(std::vector<std::string>& problems, std::string_view name, double value) {
  if (!std::isfinite(value) || value <= 0.0) {
    problems.push_back(fmt::format("{} is {}; it must be greater than 0", name, value));
  }
}

void check_scaling(std::vector<std::string>& problems, const RopeScaling& scaling) {
  if (!std::isfinite(scaling.factor) || scaling.factor < 1.0) {
    problems.push_back(fmt::format("rope_scaling.factor is {}; it must be at least 1", scaling.factor));
  }
  check_positive(problems, "rope_scaling.low_freq_factor", scaling.low_freq_factor);
  if (!std::isfinite(scaling.high_freq_factor) || !(scaling.high_freq_factor > scaling.low_freq_factor)) {
    problems.push_back(
        fmt::format("rope_scaling.high_freq_factor is {}; it must be greater than low_freq_factor, {}",
                    scaling.high_freq_factor, scaling.low_freq_factor));
  }
  check_size(problems, "rope_scaling.original_max_position", scaling.original_max_position, kMaxVocab);
}

ModelConfig llama_32_1b() {
  return {.vocab_size = 128256,
          .hidden_size = 2048,
          .intermediate_size = 8192,
          .n_layers = 16,
          .n_heads = 32,
          .n_kv_heads = 8,
          .head_dim = 64,
          .rope_scaling = RopeScaling{.factor = 32.0},
          .tie_embeddings = true};
}

ModelConfig llama_32_3b() {
  return {.vocab_size = 128256,
          .hidden_size = 3072,
          .intermediate_size = 8192,
          .n_layers = 28,
          .n_heads = 24,
          .n_kv_heads = 8,
          .head_dim = 128,
          .rope_scaling = RopeScaling{.factor = 32.0},
          .tie_embeddings = true};
}

ModelConfig llama_31_8b() {
  return {.vocab_size = 128256,
          .hidden_size = 4096,
          .intermediate_size = 14336,
          .n_layers = 32,
          .n_heads = 32,
          .n_kv_heads = 8,
          .head_dim = 128,
          .rope_scaling = RopeScaling{.factor = 8.0}};
}

ModelConfig llama_31_70b() {
  return {.vocab_size = 128256,
          .hidden_size = 8192,
          .intermediate_size = 28672,
          .n_layers = 80,
          .n_heads = 64,
          .n_kv_heads = 8,
          .head_dim = 128,
          .rope_scaling = RopeScaling{.factor = 8.0}};
}

ModelConfig llama_3_8b() {
  ModelConfig config = llama_31_8b();
  config.rope_scaling.reset();
  config.max_position = 8192;
  return config;
}

/// Small enough for unit tests, every feature present: grouped heads, scaled rotary embedding, several
/// layers. Heads divide by 4, so that world sizes 1, 2 and 4 work.
ModelConfig tiny(bool is_tied) {
  return {.vocab_size = 256,
          .hidden_size = 64,
          .intermediate_size = 160,
          .n_layers = 2,
          .n_heads = 8,
          .n_kv_heads = 4,
          .head_dim = 8,
          .rope_scaling = RopeScaling{.factor = 32.0},
          .tie_embeddings = is_tied};
}

/// Two million parameters: learns simple sentences in a minute on one core.
ModelConfig quickstart() {
  return {.vocab_size = 2048,
          .hidden_size = 192,
          .intermediate_size = 512,
          .n_layers = 4,
          .n_heads = 8,
          .n_kv_heads = 4,
          .head_dim = 24,
          .tie_embeddings = true,
          .max_position = 8192};
}

std::vector<std::pair<std::string, ModelConfig>> presets() {
  return {{"llama3.2-1b", llama_32_1b()}, {"llama3.2-3b", llama_32_3b()},   {"llama3.1-8b", llama_31_8b()},
          {"llama3-8b", llama_3_8b()},    {"llama3.1-70b", llama_31_70b()}, {"tiny", tiny(false)},
          {"tiny-tied", tiny(true)},      {"quickstart", quickstart()}};
}

}  // namespace

std::vector<std::string> find_problems(const ModelConfig& config) {
  std::vector<std::string> problems;
  check_size(problems, "vocab_size", config.vocab_size, kMaxVocab);
  check_size(problems, "hidden_size", config.hidden_size, kMaxWidth);
  check_size(problems, "intermediate_size", config.intermediate_size, kMaxIntermediate);
  check_size(problems, "n_layers", config.n_layers, kMaxLayers);
  check_size(problems, "n_heads", config.n_heads, kMaxWidth);
  check_size(problems, "n_kv_heads", config.n_kv_heads, kMaxWidth);
  check_size(problems, "head_dim", config.head_dim, kMaxWidth);
  check_size(problems, "max_position", config.max_position, kMaxVocab);
  const bool has_sizes = problems.empty();
  if (has_sizes && config.n_heads % config.n_kv_heads != 0) {
    problems.push_back(
        fmt::format("n_heads is {} and n_kv_heads {}; every kv head must serve the same number "
                    "of query heads",
                    config.n_heads, config.n_kv_heads));
  }
  if (has_sizes && config.head_dim % 2 != 0) {
    problems.push_back(
        fmt::format("head_dim is {}; it must be even, the rotary embedding turns pairs", config.head_dim));
  }
  if (has_sizes && config.n_heads * config.head_dim > kMaxWidth) {
    problems.push_back(fmt::format("n_heads · head_dim is {}; it must be at most {}",
                                   config.n_heads * config.head_dim, kMaxWidth));
  }
  check_positive(problems, "rms_norm_eps", config.rms_norm_eps);
  check_positive(problems, "rope_theta", config.rope_theta);
  if (config.rope_scaling) {
    check_scaling(problems, *config.rope_scaling);
  }
  return problems;
}

std::vector<ParameterShape> parameter_shapes(const ModelConfig& config) {
  const std::int64_t width = config.hidden_size;
  const std::int64_t query = config.n_heads * config.head_dim;
  const std::int64_t key_value = config.n_kv_heads * config.head_dim;
  const std::int64_t inner = config.intermediate_size;
  std::vector<ParameterShape> shapes = {{"tok_embeddings.weight", {config.vocab_size, width}}};
  for (std::int64_t i = 0; i < config.n_layers; ++i) {
    const auto add = [&](const char* name, const Shape& shape) {
      shapes.push_back({fmt::format("layers.{}.{}.weight", i, name), shape});
    };
    add("attention_norm", {width});
    add("attention.wq", {query, width});
    add("attention.wk", {key_value, width});
    add("attention.wv", {key_value, width});
    add("attention.wo", {width, query});
    add("ffn_norm", {width});
    add("feed_forward.w1", {inner, width});
    add("feed_forward.w3", {inner, width});
    add("feed_forward.w2", {width, inner});
  }
  shapes.push_back({"norm.weight", {width}});
  if (!config.tie_embeddings) {
    shapes.push_back({"output.weight", {config.vocab_size, width}});
  }
  return shapes;
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t total = 0;
  for (const ParameterShape& parameter : parameter_shapes(config)) {
    total += parameter.shape.numel();
  }
  return total;
}

std::vector<std::string> model_preset_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : presets()) {
    names.push_back(name);
  }
  return names;
}

std::optional<ModelConfig> model_preset(const std::string& name) {
  for (const auto& [known, config] : presets()) {
    if (known == name) {
      return config;
    }
  }
  return std::nullopt;
}

}  // namespace caravan

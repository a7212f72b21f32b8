// The shape of a Llama-3-family model. Plain data: files and presets fill it, the model reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/core/shape.h"

namespace caravan {

/// Llama-3 frequency scaling of the rotary embedding (Llama 3.1 report; docs/derivations/rope.md).
struct RopeScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  std::int64_t original_max_position = 8192;

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

struct ModelConfig {
  std::int64_t vocab_size = 0;         // V
  std::int64_t hidden_size = 0;        // D
  std::int64_t intermediate_size = 0;  // F
  std::int64_t n_layers = 0;           // L
  std::int64_t n_heads = 0;            // H
  std::int64_t n_kv_heads = 0;         // G
  std::int64_t head_dim = 0;           // E
  double rms_norm_eps = 1e-5;
  double rope_theta = 500000.0;
  std::optional<RopeScaling> rope_scaling = {};  // absent: plain frequencies
  bool tie_embeddings = false;                   // the output layer is the token embedding
  std::int64_t max_position = 131072;            // recorded in files; the trainer's limit is data.max_seq_len

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// Every impossible combination (n_heads not a multiple of n_kv_heads, odd head_dim, a size of zero, ...),
/// one sentence each; empty when the model can be built.
std::vector<std::string> find_problems(const ModelConfig& config);

struct ParameterShape {
  std::string name;  // Meta's
  Shape shape;       // global
};
/// Every parameter in the order of the forward pass; a tied output is not a parameter of its own. The one
/// list of names and shapes: the model, the files and the plan walk it.
std::vector<ParameterShape> parameter_shapes(const ModelConfig& config);

/// Trainable numbers; a tied output counts once.
std::int64_t parameter_count(const ModelConfig& config);

/// Names of the presets, in the order of the docs.
std::vector<std::string> model_preset_names();
/// Shape of a preset; nullopt for an unknown name.
std::optional<ModelConfig> model_preset(const std::string& name);

}  // namespace caravan

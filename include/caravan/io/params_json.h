// Model shapes in files: Meta's params.json and Hugging Face's config.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "caravan/config/model_config.h"
#include "caravan/core/dtype.h"

namespace caravan {

/// Meta's rule for the MLP width, with its truncations: h = int(2·4·D/3), h = int(multiplier·h), then up to a
/// multiple of `multiple_of`. IoError when the result does not fit.
std::int64_t meta_intermediate_size(std::int64_t hidden_size, std::optional<double> ffn_dim_multiplier,
                                    std::int64_t multiple_of);

struct FfnRule {
  std::optional<double> multiplier;  // absent: 1
  std::int64_t multiple_of = 256;
};
/// Arguments from which the rule gives exactly `intermediate_size`; those with few digits first.
FfnRule find_ffn_rule(std::int64_t hidden_size, std::int64_t intermediate_size);

/// What params.json says. vocab_size is 0 where the file leaves it to the tokenizer. The factor of scaled
/// rotary embeddings, which Meta's files lack: `rope_scaling_factor`, else the file's own
/// rope_scaling_factor, else 32 for hidden_size 2048 and 3072 (Llama 3.2) and 8 for all others. IoError for
/// quantised or vision variants, wrong types and impossible values; ConfigError for a factor given for a
/// model without scaling.
ModelConfig read_params_json(const std::string& path, std::optional<double> rope_scaling_factor);
/// Reads back as the same configuration but for tie_embeddings, which the tensors tell.
std::string to_params_json(const ModelConfig& config);

/// What config.json says (LlamaForCausalLM; the spellings of transformers 4 and 5). `rope_scaling_factor`
/// replaces the file's factor.
ModelConfig read_hf_config(const std::string& path, std::optional<double> rope_scaling_factor);
std::string to_hf_config(const ModelConfig& config, DType dtype);

/// Either of the two, told apart by its keys.
ModelConfig read_model_config(const std::string& path, std::optional<double> rope_scaling_factor);

}  // namespace caravan

// The tensors of a Llama 3 model: their names in the two layouts, and how the layouts differ. Inside the
// program the names and the row order of wq and wk are Meta's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/config/model_config.h"
#include "caravan/core/dtype.h"
#include "caravan/core/shape.h"

namespace caravan {

struct TensorInfo {
  std::string name;
  Shape shape;
  DType dtype = DType::kFloat32;

  friend bool operator==(const TensorInfo&, const TensorInfo&) = default;
};

inline constexpr const char* kEmbeddingName = "tok_embeddings.weight";
inline constexpr const char* kOutputName = "output.weight";

/// parameter_shapes(config) with a dtype.
std::vector<TensorInfo> expected_tensors(const ModelConfig& config, DType dtype);

/// "layers.3.attention.wq.weight" for "model.layers.3.self_attn.q_proj.weight"; null for a name Llama lacks.
std::optional<std::string> meta_name_of(std::string_view hf_name);
std::optional<std::string> hf_name_of(std::string_view meta_name);

/// Dim along which files consolidated.NN.pth hold parts of this tensor; null where each holds all of it.
std::optional<int> file_split_dim(std::string_view meta_name);

/// Heads whose rows lie in another order in Hugging Face files (wq and wk), 0 for every other tensor.
std::int64_t permuted_heads(std::string_view meta_name, const ModelConfig& config);

/// Row of the Hugging Face tensor that holds row `meta_row` of Meta's. Meta rotates pairs (2j, 2j+1) of a
/// head's rows, Hugging Face pairs (j, j + E/2): W_hf[h·E + p·E/2 + j] = W_meta[h·E + 2j + p] for p in {0,
/// 1}.
constexpr std::int64_t hf_row_of(std::int64_t meta_row, std::int64_t head_dim) {
  const std::int64_t in_head = meta_row % head_dim;
  return meta_row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

/// Tables that old files carry and no model needs (rope.freqs, rotary_emb.inv_freq, freqs_cis).
bool is_ignored_tensor(std::string_view name);

}  // namespace caravan

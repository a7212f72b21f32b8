#include "caravan/io/llama_names.h"

#include <fmt/format.h>

#include <array>
#include <cctype>

namespace caravan {
namespace {

constexpr int kReplicated = -1;

/// Names of one tensor without "layers.{i}." and "model.layers.{i}.".
struct NameRow {
  std::string_view meta;
  std::string_view hf;
  int split_dim;
};

constexpr std::array kModelRows = {
    NameRow{kEmbeddingName, "model.embed_tokens.weight", 0},
    NameRow{"norm.weight", "model.norm.weight", kReplicated},
    NameRow{kOutputName, "lm_head.weight", 0},
};
constexpr std::array kLayerRows = {
    NameRow{"attention_norm.weight", "input_layernorm.weight", kReplicated},
    NameRow{"attention.wq.weight", "self_attn.q_proj.weight", 0},
    NameRow{"attention.wk.weight", "self_attn.k_proj.weight", 0},
    NameRow{"attention.wv.weight", "self_attn.v_proj.weight", 0},
    NameRow{"attention.wo.weight", "self_attn.o_proj.weight", 1},
    NameRow{"ffn_norm.weight", "post_attention_layernorm.weight", kReplicated},
    NameRow{"feed_forward.w1.weight", "mlp.gate_proj.weight", 0},
    NameRow{"feed_forward.w3.weight", "mlp.up_proj.weight", 0},
    NameRow{"feed_forward.w2.weight", "mlp.down_proj.weight", 1},
};

struct LayerName {
  std::string_view index;  // digits as written
  std::string_view inner;
};

/// Splits "<prefix>12.rest"; null when the name is not of that form (a leading zero included, so that no two
/// names mean one tensor).
std::optional<LayerName> split_layer(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  name.remove_prefix(prefix.size());
  std::size_t digits = 0;
  while (digits < name.size() && std::isdigit(static_cast<unsigned char>(name[digits])) != 0) {
    ++digits;
  }
  if (digits == 0 || digits >= name.size() || name[digits] != '.' || (digits > 1 && name[0] == '0')) {
    return std::nullopt;
  }
  return LayerName{name.substr(0, digits), name.substr(digits + 1)};
}

const NameRow* find_meta(std::string_view name) {
  for (const NameRow& row : kModelRows) {
    if (row.meta == name) {
      return &row;
    }
  }
  if (const auto layer = split_layer(name, "layers.")) {
    for (const NameRow& row : kLayerRows) {
      if (row.meta == layer->inner) {
        return &row;
      }
    }
  }
  return nullptr;
}

}  // namespace

std::vector<TensorInfo> expected_tensors(const ModelConfig& config, DType dtype) {
  std::vector<TensorInfo> tensors;
  for (ParameterShape& parameter : parameter_shapes(config)) {
    tensors.push_back({std::move(parameter.name), parameter.shape, dtype});
  }
  return tensors;
}

std::optional<std::string> meta_name_of(std::string_view hf_name) {
  for (const NameRow& row : kModelRows) {
    if (row.hf == hf_name) {
      return std::string(row.meta);
    }
  }
  if (const auto layer = split_layer(hf_name, "model.layers.")) {
    for (const NameRow& row : kLayerRows) {
      if (row.hf == layer->inner) {
        return fmt::format("layers.{}.{}", layer->index, row.meta);
      }
    }
  }
  return std::nullopt;
}

std::optional<std::string> hf_name_of(std::string_view meta_name) {
  const NameRow* row = find_meta(meta_name);
  if (row == nullptr) {
    return std::nullopt;
  }
  const auto layer = split_layer(meta_name, "layers.");
  return layer ? fmt::format("model.layers.{}.{}", layer->index, row->hf) : std::string(row->hf);
}

std::optional<int> file_split_dim(std::string_view meta_name) {
  const NameRow* row = find_meta(meta_name);
  return row == nullptr || row->split_dim == kReplicated ? std::nullopt : std::optional(row->split_dim);
}

std::int64_t permuted_heads(std::string_view meta_name, const ModelConfig& config) {
  const auto layer = split_layer(meta_name, "layers.");
  if (!layer) {
    return 0;
  }
  return layer->inner == "attention.wq.weight"   ? config.n_heads
         : layer->inner == "attention.wk.weight" ? config.n_kv_heads
                                                 : 0;
}

bool is_ignored_tensor(std::string_view name) {
  return name == "rope.freqs" || name == "freqs_cis" || name == "inv_freq" || name.ends_with(".inv_freq");
}

}  // namespace caravan

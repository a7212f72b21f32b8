#include "caravan/model/llama.h"

#include <fmt/ranges.h>

namespace caravan {
namespace {

const ModelConfig& possible(const ModelConfig& config) {
  if (const auto problems = find_problems(config); !problems.empty()) {
    fail<ConfigError>("this model cannot be built: {}", fmt::join(problems, "; "));
  }
  return config;
}

}  // namespace

Llama::Llama(const ModelConfig& config, const Layout& layout, Backend& backend, const Ports& ports)
    : config_(possible(config)),
      layout_(layout),
      ports_(ports),
      parameters_(parameter_table(config, layout.table), layout.at, layout.dtype, backend, layout.gradients,
                  layout.values),
      rope_(backend, layout.dtype, config, layout.positions) {
  Parameter& embedding = parameters_.at("tok_embeddings.weight");
  const bool is_cut = !embedding.spec().shard.cuts.empty();
  segments_.push_back(std::make_unique<EmbeddingSegment>(embedding, is_cut ? ports.boundary : whole_table_));
  for (int i = 0; i < config.n_layers; ++i) {
    const auto tensor = [&](const char* name) -> Parameter& {
      return parameters_.at(fmt::format("layers.{}.{}.weight", i, name));
    };
    segments_.push_back(std::make_unique<AttentionSegment>(AttentionSegment::Parts{
        .norm = tensor("attention_norm"),
        .wq = tensor("attention.wq"),
        .wk = tensor("attention.wk"),
        .wv = tensor("attention.wv"),
        .wo = tensor("attention.wo"),
        .rope = rope_,
        .boundary = ports.boundary,
        .core = ports.attention,
        .head_dim = config.head_dim,
        .eps = config.rms_norm_eps,
        .layer = i,
    }));
    segments_.push_back(std::make_unique<MlpSegment>(MlpSegment::Parts{
        .norm = tensor("ffn_norm"),
        .w1 = tensor("feed_forward.w1"),
        .w3 = tensor("feed_forward.w3"),
        .w2 = tensor("feed_forward.w2"),
        .boundary = ports.boundary,
        .eps = config.rms_norm_eps,
    }));
  }
  head_ = std::make_unique<LmHead>(LmHead::Parts{
      .norm = parameters_.at("norm.weight"),
      .output = config.tie_embeddings ? embedding : parameters_.at("output.weight"),
      .boundary = ports.boundary,
      .vocab = ports.vocab,
      .eps = config.rms_norm_eps,
  });
}

}  // namespace caravan

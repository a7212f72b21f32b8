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

std::vector<Range> stage_layers(const ModelConfig& config, const Llama::Layout& layout) {
  return layout.stages.empty() ? std::vector<Range>{{0, config.n_layers}} : layout.stages;
}

Llama::Llama(const ModelConfig& config, const Layout& layout, Backend& backend, const Ports& ports)
    : config_(possible(config)),
      layout_(layout),
      ports_(ports),
      parameters_(parameter_table(config, layout.table, stage_layers(config, layout)), layout.at,
                  layout.dtype, backend, layout.gradients, layout.values),
      rope_(backend, layout.dtype, config, layout.positions) {
  for (const Range& layers : stage_layers(config, layout)) {
    const auto begin = static_cast<std::int64_t>(segments_.size());
    if (layers.begin == 0) {
      Parameter& embedding = parameters_.at("tok_embeddings.weight");
      const bool is_cut = !embedding.spec().shard.cuts.empty();
      segments_.push_back(
          std::make_unique<EmbeddingSegment>(embedding, is_cut ? ports.boundary : whole_table_));
    }
    for (std::int64_t layer = layers.begin; layer < layers.end; ++layer) {
      add_layer(static_cast<int>(layer));
    }
    stages_.push_back({begin, static_cast<std::int64_t>(segments_.size())});
    if (layers.end == config.n_layers) {
      head_ = std::make_unique<LmHead>(LmHead::Parts{
          .norm = parameters_.at("norm.weight"),
          .output = parameters_.at(config.tie_embeddings ? "tok_embeddings.weight" : "output.weight"),
          .boundary = ports.boundary,
          .vocab = ports.vocab,
          .eps = config.rms_norm_eps,
      });
    }
  }
}

void Llama::add_layer(int layer) {
  const auto tensor = [&](const char* name) -> Parameter& {
    return parameters_.at(fmt::format("layers.{}.{}.weight", layer, name));
  };
  segments_.push_back(std::make_unique<AttentionSegment>(AttentionSegment::Parts{
      .norm = tensor("attention_norm"),
      .wq = tensor("attention.wq"),
      .wk = tensor("attention.wk"),
      .wv = tensor("attention.wv"),
      .wo = tensor("attention.wo"),
      .rope = rope_,
      .boundary = ports_.boundary,
      .core = ports_.attention,
      .head_dim = config_.head_dim,
      .eps = config_.rms_norm_eps,
      .layer = layer,
  }));
  segments_.push_back(std::make_unique<MlpSegment>(MlpSegment::Parts{
      .norm = tensor("ffn_norm"),
      .w1 = tensor("feed_forward.w1"),
      .w3 = tensor("feed_forward.w3"),
      .w2 = tensor("feed_forward.w2"),
      .boundary = ports_.boundary,
      .eps = config_.rms_norm_eps,
      .layer = layer,
  }));
}

}  // namespace caravan

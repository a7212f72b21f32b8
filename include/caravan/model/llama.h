// A Llama 3 model, or one rank's part of it: parameters, segments and head, built from a configuration, this
// rank's coordinates and the ports to the world outside.
#pragma once

#include <memory>
#include <vector>

#include "caravan/model/attention_segment.h"
#include "caravan/model/embedding_segment.h"
#include "caravan/model/lm_head.h"
#include "caravan/model/local_ports.h"
#include "caravan/model/mlp_segment.h"

namespace caravan {

/// The ports a model is built with; all outlive it.
struct Ports {
  const Boundary& boundary;
  const AttentionCore& attention;
  const VocabReduce& vocab;
};

class Llama {
 public:
  struct Layout {
    ShardTable table = ShardTable::kWhole;
    Coordinates at = {};
    DType dtype = DType::kFloat32;
    Gradients gradients = Gradients::kAllocated;
    Values values = Values::kAllocated;
    std::int64_t positions = 0;      // rows of the rotary tables: the longest row
    std::vector<Range> stages = {};  // the layers of each pipeline stage held here; none: the whole model
  };
  /// Throws ConfigError when the configuration is impossible. Memory comes from `backend`.
  Llama(const ModelConfig& config, const Layout& layout, Backend& backend, const Ports& ports);
  Llama(const Llama&) = delete;
  Llama& operator=(const Llama&) = delete;
  Llama(Llama&&) = delete;
  Llama& operator=(Llama&&) = delete;
  ~Llama() = default;

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return layout_.dtype; }
  const Layout& layout() const { return layout_; }
  const Ports& ports() const { return ports_; }
  ParameterSet& parameters() { return parameters_; }
  const ParameterSet& parameters() const { return parameters_; }
  std::int64_t rope_bytes() const { return rope_.bytes(); }
  /// Of the residual stream here when the ranks together have `tokens`: [T_stream, D].
  Shape stream_shape(std::int64_t tokens) const {
    return {ports_.boundary.stream_tokens(tokens), config_.hidden_size};
  }

  /// Embedding, then attention and MLP of each layer: those of the stages held here.
  const std::vector<std::unique_ptr<Segment>>& segments() const { return segments_; }
  /// The segments [begin, end) of each stage held here.
  const std::vector<Range>& stages() const { return stages_; }
  /// True where the last layer is.
  bool has_head() const { return head_ != nullptr; }
  const LmHead& head() const {
    CARAVAN_CHECK(has_head(), "the head is in another stage");
    return *head_;
  }

 private:
  void add_layer(int layer);

  ModelConfig config_;
  Layout layout_;
  Ports ports_;
  ParameterSet parameters_;
  RopeTable rope_;
  LocalBoundary whole_table_;  // the embedding's, where no rank has only a part of it
  std::vector<std::unique_ptr<Segment>> segments_;
  std::vector<Range> stages_;
  std::unique_ptr<LmHead> head_;
};

/// The layers of each stage held here: one stage of all layers where the model is not cut.
std::vector<Range> stage_layers(const ModelConfig& config, const Llama::Layout& layout);

}  // namespace caravan

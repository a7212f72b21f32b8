#include "support/port_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "caravan/core/counter_rng.h"
#include "caravan/ops/elementwise.h"

namespace caravan::test {
namespace {

constexpr std::int64_t kArenaBytes = std::int64_t{4} << 20;
constexpr std::int64_t kPositions = 128;

bool has(const std::string& name, const char* part) {
  return name.find(part) != std::string::npos;
}

std::vector<ParameterSpec> cut_over_tp(const ModelConfig& config) {
  std::vector<ParameterSpec> specs = parameter_table(config, ShardTable::kWhole);
  for (ParameterSpec& spec : specs) {
    const auto cut = [&](int dim, std::int64_t unit) { spec.shard.cuts = {{"tp", dim, unit}}; };
    if (has(spec.name, ".wq.") || has(spec.name, ".wk.") || has(spec.name, ".wv.")) {
      cut(0, config.head_dim);
    } else if (has(spec.name, ".wo.")) {
      cut(1, config.head_dim);
    } else if (has(spec.name, ".w2.")) {
      cut(1, 1);
    } else if (!has(spec.name, "norm")) {
      cut(0, 1);
    }
  }
  return specs;
}

/// Values that depend on the name and the global index only.
void fill(const Context& ctx, const Parameter& parameter) {
  const Region& region = parameter.region();
  const bool is_vector = parameter.shape().rank() == 1;
  random_normal(ctx, {.y = parameter.stored_value(),
                      .row_begin = is_vector ? 0 : region[0].begin,
                      .col_begin = is_vector ? region[0].begin : region[1].begin,
                      .global_cols = parameter.spec().shape[is_vector ? 0 : 1],
                      .standard_deviation = 0.5,
                      .seed = 3,
                      .stream = stream_id(parameter.name())});
}

}  // namespace

ModelConfig port_model_config() {
  ModelConfig config;
  config.vocab_size = 19;
  config.hidden_size = 12;
  config.intermediate_size = 20;
  config.n_layers = 1;
  config.n_heads = 8;
  config.n_kv_heads = 8;
  config.head_dim = 4;
  config.tie_embeddings = false;
  return config;
}

TokenRows::TokenRows(std::int64_t rows_wanted, std::int64_t seq_len_wanted)
    : rows(rows_wanted), seq_len(seq_len_wanted) {
  const auto vocabulary = static_cast<std::int32_t>(port_model_config().vocab_size);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t second = row % 2 == 1 ? seq_len / 3 : 0;  // where the second document begins
    for (std::int64_t s = 0; s < seq_len; ++s) {
      const auto at = static_cast<std::int32_t>(s);
      const auto start = static_cast<std::int32_t>(s >= second ? second : 0);
      ids.push_back(static_cast<std::int32_t>((5 * s + 3 * row + s * s) % vocabulary));
      targets.push_back(static_cast<std::int32_t>((7 * s + row + 2) % vocabulary));
      weights.push_back(s % 5 == 3 ? 0.0F : 1.0F);
      index.push_back(at);
      document_start.push_back(start);
      positions.push_back(at - start);
    }
  }
}

TokenRows TokenRows::take(const std::vector<std::int64_t>& places) const {
  TokenRows part(0, 0);
  part.rows = rows;
  part.seq_len = static_cast<std::int64_t>(places.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    for (const std::int64_t place : places) {
      const auto at = static_cast<std::size_t>(row * seq_len + place);
      part.ids.push_back(ids[at]);
      part.targets.push_back(targets[at]);
      part.weights.push_back(weights[at]);
      part.index.push_back(index[at]);
      part.document_start.push_back(document_start[at]);
      part.positions.push_back(positions[at]);
    }
  }
  return part;
}

void TokenRows::order_keys(Communicator& cp, ContextExchange exchange) {
  const ContextSplit split = {.ranks = cp.size(), .exchange = exchange};
  const std::int64_t tokens = rows * seq_len;
  std::vector<std::int32_t> of_ranks(static_cast<std::size_t>(split.ranks * tokens));
  cp.all_gather({index.data(), DType::kInt32, {tokens}},
                {of_ranks.data(), DType::kInt32, {split.ranks * tokens}});
  key_numbers_ =
      std::make_shared<std::vector<std::int32_t>>(static_cast<std::size_t>(key_numbers(split) * tokens));
  const TensorView numbers(key_numbers_->data(), DType::kInt32, {std::ssize(*key_numbers_)});
  auto keys = std::make_shared<ContextKeys>(context_keys(split, tokens, numbers));
  caravan::order_keys(split,
                      {.batch = rows,
                       .seq_len = seq_len,
                       .index_of_ranks = of_ranks,
                       .index = index,
                       .document_start = document_start},
                      numbers, *keys);
  keys_ = std::move(keys);
}

TokenBatch TokenRows::view() {
  const Shape shape = {rows * seq_len};
  return {.batch = rows,
          .seq_len = seq_len,
          .ids = {ids.data(), DType::kInt32, shape},
          .targets = {targets.data(), DType::kInt32, shape},
          .target_weights = {weights.data(), DType::kFloat32, shape},
          .index = {index.data(), DType::kInt32, shape},
          .document_start = {document_start.data(), DType::kInt32, shape},
          .positions = {positions.data(), DType::kInt32, shape},
          .context = keys_};
}

std::int64_t TokenRows::valid_tokens() const {
  return std::count_if(weights.begin(), weights.end(), [](float weight) { return weight > 0.0F; });
}

PortModel::PortModel(const Coordinates& at, const Ports& ports, SavePolicy policy)
    : parameters_(cut_over_tp(port_model_config()), at, DType::kFloat64, backend_, Gradients::kAllocated),
      rope_(backend_, DType::kFloat64, port_model_config(), kPositions),
      boundary_(ports.boundary),
      policy_(policy),
      store_(parameters_),
      saved_arena_("saved", backend_.allocate(kArenaBytes)),
      scratch_("scratch", backend_.allocate(kArenaBytes)) {
  const Context ctx{backend_, stream_, scratch_, scalars_, DType::kFloat64};
  for (const Parameter& parameter : parameters_.all()) {
    fill(ctx, parameter);
  }
  const ModelConfig config = port_model_config();
  const auto layer = [&](const std::string& name) -> Parameter& {
    return parameters_.at("layers.0." + name + ".weight");
  };
  Parameter& embedding = parameters_.at("tok_embeddings.weight");
  segments_.push_back(std::make_unique<EmbeddingSegment>(embedding, ports.boundary));
  segments_.push_back(
      std::make_unique<AttentionSegment>(AttentionSegment::Parts{.norm = layer("attention_norm"),
                                                                 .wq = layer("attention.wq"),
                                                                 .wk = layer("attention.wk"),
                                                                 .wv = layer("attention.wv"),
                                                                 .wo = layer("attention.wo"),
                                                                 .rope = rope_,
                                                                 .boundary = ports.boundary,
                                                                 .core = ports.attention,
                                                                 .head_dim = config.head_dim,
                                                                 .eps = config.rms_norm_eps,
                                                                 .layer = 0}));
  segments_.push_back(std::make_unique<MlpSegment>(MlpSegment::Parts{.norm = layer("ffn_norm"),
                                                                     .w1 = layer("feed_forward.w1"),
                                                                     .w3 = layer("feed_forward.w3"),
                                                                     .w2 = layer("feed_forward.w2"),
                                                                     .boundary = ports.boundary,
                                                                     .eps = config.rms_norm_eps}));
  for (const auto& segment : segments_) {
    saved_.push_back(segment->make_saved());
  }
  head_ = std::make_unique<LmHead>(LmHead::Parts{.norm = parameters_.at("norm.weight"),
                                                 .output = parameters_.at("output.weight"),
                                                 .boundary = ports.boundary,
                                                 .vocab = ports.vocab,
                                                 .eps = config.rms_norm_eps});
}

void PortModel::forward_blocks(Context& ctx, const TokenBatch& batch, ResidualStream& stream) {
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const std::vector<int> groups = segments_[i]->groups();
    const Lease lease(store_, groups);
    saved_[i]->begin(&saved_arena_, policy_);
    const ArenaScope scope(ctx.scratch);
    segments_[i]->forward(ctx, batch, stream, *saved_[i]);
    saved_[i]->forget_scratch();
  }
}

double PortModel::forward_backward(TokenRows& tokens, std::int64_t valid_tokens) {
  const TokenBatch batch = tokens.view();
  Context ctx{backend_, stream_, scratch_, scalars_, DType::kFloat64};
  scalars_.inv_valid_tokens = 1.0 / static_cast<double>(valid_tokens);
  for (Parameter& parameter : parameters_.all()) {
    zero(ctx, {.x = parameter.stored_grad()});
  }
  const ArenaScope scope(scratch_);
  const Shape shape = {boundary_.stream_tokens(batch.n_tokens()), port_model_config().hidden_size};
  ResidualStream stream{.x = {}, .delta = ctx.allocate("delta", shape)};
  const TensorView g = ctx.allocate("g", shape);
  const TensorView losses = ctx.allocate("losses", {batch.n_tokens()});
  forward_blocks(ctx, batch, stream);
  add(ctx, {.x = stream.x, .z = stream.delta, .y = g});
  hidden = doubles(g);
  {
    const std::vector<int> groups = head_->groups();
    const Lease lease(store_, groups);
    head_->loss_and_backward(ctx, batch, stream, losses, g);
  }
  for (std::size_t i = segments_.size(); i-- > 0;) {
    const std::vector<int> groups = segments_[i]->groups();
    const Lease lease(store_, groups);
    if (i == 0) {
      dembedding = doubles(g);
    }
    segments_[i]->backward(ctx, batch, g, *saved_[i]);
    saved_[i]->finish();
  }
  const std::vector<double> all = doubles(losses);
  return std::accumulate(all.begin(), all.end(), 0.0);
}

double relative_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) {
    return std::numeric_limits<double>::infinity();
  }
  double worst = 0.0;
  double scale = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(actual[i])) {
      return std::numeric_limits<double>::infinity();
    }
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
    scale = std::max(scale, std::abs(expected[i]));
  }
  return scale > 0.0 ? worst / scale : worst;
}

std::vector<double> doubles(const TensorView& view) {
  return {view.data<double>(), view.data<double>() + view.numel()};
}

std::vector<double> same_part(const Parameter& whole, const Parameter& part) {
  const auto* values = whole.stored_grad().data<double>();
  std::vector<double> result;
  const Region& region = part.region();
  const bool is_vector = region.size() == 1;
  const Range rows = is_vector ? Range{0, 1} : region[0];
  const Range cols = is_vector ? region[0] : region[1];
  const std::int64_t width = whole.shape()[whole.shape().rank() - 1];
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    for (std::int64_t col = cols.begin; col < cols.end; ++col) {
      result.push_back(values[row * width + col]);
    }
  }
  return result;
}

}  // namespace caravan::test

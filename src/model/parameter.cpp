#include "caravan/model/parameter.h"

#include <cmath>

#include "caravan/core/counter_rng.h"
#include "caravan/ops/elementwise.h"

namespace caravan {
namespace {

constexpr std::int64_t kAlignment = 64;

std::int64_t aligned_bytes(const Shape& shape, DType dtype) {
  const std::int64_t bytes = shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// Cuts of the federated table: whole heads, single MLP rows.
ShardSpec cut(ShardTable table, int dim, std::int64_t unit) {
  return table == ShardTable::kWhole ? ShardSpec{} : ShardSpec{{{"slot", dim, unit}}, {}};
}

}  // namespace

std::vector<ParameterSpec> parameter_table(const ModelConfig& config, ShardTable table) {
  const std::int64_t d = config.hidden_size;
  const std::int64_t f = config.intermediate_size;
  const std::int64_t q = config.n_heads * config.head_dim;
  const std::int64_t kv = config.n_kv_heads * config.head_dim;
  const std::int64_t e = config.head_dim;
  // The two maps that write to the residual stream start smaller, so that its variance does not grow with
  // depth (Radford et al. 2019, section 2.3).
  const double to_residual = 0.02 / std::sqrt(2.0 * static_cast<double>(config.n_layers));

  std::vector<ParameterSpec> specs;
  specs.push_back({"tok_embeddings.weight", {config.vocab_size, d}, {}, 0});
  for (std::int64_t i = 0; i < config.n_layers; ++i) {
    const std::string layer = fmt::format("layers.{}.", i);
    const int attention = static_cast<int>(1 + 2 * i);
    const int mlp = attention + 1;
    specs.push_back({layer + "attention_norm.weight", {d}, {}, attention, 0.0});
    specs.push_back({layer + "attention.wq.weight", {q, d}, cut(table, 0, e), attention});
    specs.push_back({layer + "attention.wk.weight", {kv, d}, cut(table, 0, e), attention});
    specs.push_back({layer + "attention.wv.weight", {kv, d}, cut(table, 0, e), attention});
    specs.push_back({layer + "attention.wo.weight", {d, q}, cut(table, 1, e), attention, to_residual});
    specs.push_back({layer + "ffn_norm.weight", {d}, {}, mlp, 0.0});
    specs.push_back({layer + "feed_forward.w1.weight", {f, d}, cut(table, 0, 1), mlp});
    specs.push_back({layer + "feed_forward.w3.weight", {f, d}, cut(table, 0, 1), mlp});
    specs.push_back({layer + "feed_forward.w2.weight", {d, f}, cut(table, 1, 1), mlp, to_residual});
  }
  const int head = static_cast<int>(1 + 2 * config.n_layers);
  specs.push_back({"norm.weight", {d}, {}, head, 0.0});
  if (!config.tie_embeddings) {
    specs.push_back({"output.weight", {config.vocab_size, d}, {}, head});
  }
  return specs;
}

ParameterSet::ParameterSet(std::vector<ParameterSpec> specs, const Coordinates& at, DType dtype,
                           Backend& backend, Gradients gradients) {
  std::int64_t bytes = 0;
  for (ParameterSpec& spec : specs) {
    parameters_.emplace_back(std::move(spec), at);
    bytes += aligned_bytes(parameters_.back().shape(), dtype);
  }
  values_ = backend.allocate(bytes);
  if (gradients == Gradients::kAllocated) {
    grads_ = backend.allocate(bytes);
  }
  std::int64_t offset = 0;
  for (Parameter& parameter : parameters_) {
    parameter.value_ = values_.view(offset, dtype, parameter.shape());
    if (gradients == Gradients::kAllocated) {
      parameter.grad_ = grads_.view(offset, dtype, parameter.shape());
    }
    offset += aligned_bytes(parameter.shape(), dtype);
  }
}

Parameter* ParameterSet::find(const std::string& name) {
  for (Parameter& parameter : parameters_) {
    if (parameter.name() == name) {
      return &parameter;
    }
  }
  return nullptr;
}

Parameter& ParameterSet::at(const std::string& name) {
  Parameter* parameter = find(name);
  CARAVAN_CHECK(parameter != nullptr, "no parameter {}", name);
  return *parameter;
}

void ParameterSet::relocate(const Coordinates& at) {
  for (Parameter& parameter : parameters_) {
    const Region region = parameter.spec_.shard.resolve(parameter.spec_.shape, at);
    CARAVAN_CHECK(region_shape(region) == parameter.shape_, "{} would change its shape", parameter.name());
    parameter.region_ = region;
  }
}

std::int64_t ParameterSet::numel() const {
  std::int64_t total = 0;
  for (const Parameter& parameter : parameters_) {
    total += parameter.shape().numel();
  }
  return total;
}

void initialise(const Context& ctx, ParameterSet& parameters, std::uint64_t seed) {
  for (Parameter& parameter : parameters.all()) {
    const ParameterSpec& spec = parameter.spec();
    const TensorView value = parameter.stored_value();
    if (spec.initial_deviation == 0.0) {
      std::vector<double> ones(static_cast<std::size_t>(value.numel()), 1.0);
      copy(ctx, {.from = TensorView(ones.data(), DType::kFloat64, value.shape()), .to = value});
      continue;
    }
    const Region& region = parameter.region();
    random_normal(ctx, {.y = value,
                        .row_begin = region[0].begin,
                        .col_begin = region[1].begin,
                        .global_cols = spec.shape[1],
                        .standard_deviation = spec.initial_deviation,
                        .seed = seed,
                        .stream = stream_id(spec.name)});
  }
}

}  // namespace caravan

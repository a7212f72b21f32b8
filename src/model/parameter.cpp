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

bool has(const std::string& name, const char* part) {
  return name.find(part) != std::string::npos;
}

/// Cuts of the federated table: whole heads of q, k, v (rows) and o (columns), single rows of w1 and w3,
/// columns of w2.
ShardSpec federated_cut(const std::string& name, const ModelConfig& config) {
  const auto cut = [](int dim, std::int64_t unit) { return ShardSpec{{{"slot", dim, unit}}, {}}; };
  if (has(name, ".wq.") || has(name, ".wk.") || has(name, ".wv.")) {
    return cut(0, config.head_dim);
  }
  if (has(name, ".wo.")) {
    return cut(1, config.head_dim);
  }
  if (has(name, ".w1.") || has(name, ".w3.")) {
    return cut(0, 1);
  }
  return has(name, ".w2.") ? cut(1, 1) : ShardSpec{};
}

/// The embedding, then attention and MLP of each layer, then the head.
int group_of(const std::string& name, const ModelConfig& config) {
  if (!name.starts_with("layers.")) {
    return name == "tok_embeddings.weight" ? 0 : static_cast<int>(1 + 2 * config.n_layers);
  }
  const int layer = std::stoi(name.substr(std::string("layers.").size()));
  return 1 + 2 * layer + (has(name, "feed_forward") || has(name, "ffn_norm") ? 1 : 0);
}

double initial_deviation(const std::string& name, const ModelConfig& config) {
  constexpr double kDeviation = 0.02;
  if (has(name, "norm")) {
    return 0.0;
  }
  // The two maps that write to the residual stream start smaller, so that its variance does not grow with
  // depth (Radford et al. 2019, section 2.3).
  const bool writes_to_residual = has(name, ".wo.") || has(name, ".w2.");
  return writes_to_residual ? kDeviation / std::sqrt(2.0 * static_cast<double>(config.n_layers)) : kDeviation;
}

}  // namespace

std::vector<ParameterSpec> parameter_table(const ModelConfig& config, ShardTable table) {
  std::vector<ParameterSpec> specs;
  for (const ParameterShape& parameter : parameter_shapes(config)) {
    const std::string& name = parameter.name;
    specs.push_back({name, parameter.shape,
                     table == ShardTable::kFederated ? federated_cut(name, config) : ShardSpec{},
                     group_of(name, config), initial_deviation(name, config)});
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

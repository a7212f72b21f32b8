#include "caravan/model/parameter.h"

#include <algorithm>
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

/// Whole heads of q, k, v (rows) and o (columns), single rows of w1 and w3, columns of w2.
ShardSpec block_cut(const std::string& name, const ModelConfig& config, const char* axis,
                    const char* kv_axis) {
  const auto cut = [](const char* over, int dim, std::int64_t unit) {
    return ShardSpec{{{over, dim, unit}}, {}};
  };
  if (has(name, ".wq.")) {
    return cut(axis, 0, config.head_dim);
  }
  if (has(name, ".wk.") || has(name, ".wv.")) {
    return cut(kv_axis, 0, config.head_dim);
  }
  if (has(name, ".wo.")) {
    return cut(axis, 1, config.head_dim);
  }
  if (has(name, ".w1.") || has(name, ".w3.")) {
    return cut(axis, 0, 1);
  }
  return has(name, ".w2.") ? cut(axis, 1, 1) : ShardSpec{};
}

ShardSpec synchronous_cut(const std::string& name, const ModelConfig& config) {
  if (has(name, "norm")) {
    return {{}, {"sp"}};
  }
  if (name == "tok_embeddings.weight" || name == "output.weight") {
    const bool is_shared = config.tie_embeddings;
    return {{{"tp", 0, 1}},
            is_shared ? std::vector<std::string>{"table_copies"} : std::vector<std::string>{}};
  }
  ShardSpec spec = block_cut(name, config, "tp", "kv");
  if (spec.is_split("kv")) {
    spec.partial_axes = {"kv_copies"};
  }
  return spec;
}

ShardSpec shard_of(const std::string& name, const ModelConfig& config, ShardTable table) {
  switch (table) {
    case ShardTable::kWhole:
      return {};
    case ShardTable::kFederated:
      return block_cut(name, config, "slot", "slot");
    case ShardTable::kSynchronous:
      return synchronous_cut(name, config);
  }
  fail<InternalError>("no shard table {}", static_cast<int>(table));
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
    specs.push_back({name, parameter.shape, shard_of(name, config, table), group_of(name, config),
                     initial_deviation(name, config)});
  }
  return specs;
}

std::vector<ParameterSpec> parameter_table(const ModelConfig& config, ShardTable table,
                                           const std::vector<Range>& stages) {
  const auto any = [&](const auto& has_it) { return std::any_of(stages.begin(), stages.end(), has_it); };
  const bool has_first = any([](const Range& layers) { return layers.begin == 0; });
  const bool has_last = any([&](const Range& layers) { return layers.end == config.n_layers; });
  std::vector<ParameterSpec> specs = parameter_table(config, table);
  std::erase_if(specs, [&](const ParameterSpec& spec) {
    if (spec.group == 0) {
      return !has_first && !(has_last && config.tie_embeddings);
    }
    const std::int64_t layer = (spec.group - 1) / 2;  // of the head's group: the number of layers
    return !(layer == config.n_layers ? has_last : any([&](const Range& layers) {
      return layers.begin <= layer && layer < layers.end;
    }));
  });
  return specs;
}

ParameterSet::ParameterSet(std::vector<ParameterSpec> specs, const Coordinates& at, DType dtype,
                           Backend& backend, Gradients gradients, Values values) {
  for (ParameterSpec& spec : specs) {
    parameters_.emplace_back(std::move(spec), at);
  }
  const auto lay_out = [&](Buffer& memory, DType stored, TensorView Parameter::*view) {
    std::int64_t bytes = 0;
    for (const Parameter& parameter : parameters_) {
      bytes += aligned_bytes(parameter.shape(), stored);
    }
    memory = backend.allocate(bytes);
    std::int64_t offset = 0;
    for (Parameter& parameter : parameters_) {
      parameter.*view = memory.view(offset, stored, parameter.shape());
      offset += aligned_bytes(parameter.shape(), stored);
    }
  };
  if (values == Values::kAllocated) {
    lay_out(values_, dtype, &Parameter::value_);
  }
  if (gradients == Gradients::kAllocated) {
    lay_out(grads_, accumulation_dtype(dtype), &Parameter::grad_);
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

std::vector<ParameterShard> whole_shards(const ParameterSet& parameters) {
  std::vector<ParameterShard> shards;
  for (const Parameter& parameter : parameters.all()) {
    shards.push_back({&parameter, parameter.region(), parameter.stored_value(), parameter.stored_grad()});
  }
  return shards;
}

void initialise(const Context& ctx, const std::vector<ParameterShard>& shards, std::uint64_t seed) {
  for (const ParameterShard& shard : shards) {
    const ParameterSpec& spec = shard.parameter->spec();
    const TensorView value = shard.value;
    if (spec.initial_deviation == 0.0) {
      std::vector<double> ones(static_cast<std::size_t>(value.numel()), 1.0);
      copy(ctx, {.from = TensorView(ones.data(), DType::kFloat64, value.shape()), .to = value});
      continue;
    }
    const Region& region = shard.region;
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

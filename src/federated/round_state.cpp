#include "caravan/federated/round_state.h"

#include <algorithm>
#include <filesystem>

#include "caravan/backend/device_memory.h"
#include "caravan/io/safetensors.h"
#include "caravan/train/save_model.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string slot_file(const std::string& folder, std::int64_t slot) {
  return (fs::path(folder) / fmt::format("adamw_slot{}.safetensors", slot)).string();
}

std::string momentum_file(const std::string& folder) {
  return (fs::path(folder) / "outer_momentum.safetensors").string();
}

std::string masters_file(const std::string& folder) {
  return (fs::path(folder) / "masters.safetensors").string();
}

bool has_masters(const RunConfig& config) {
  return accumulation_dtype(config.dtype) != config.dtype;
}

bool keeps_optimizer(const RunConfig& config) {
  return config.federated.optimizer_state == OptimizerState::kKeep;
}

bool has_momentum(const RunConfig& config) {
  return config.federated.outer.momentum != 0.0;
}

/// What of a stored tensor is wanted, and where.
struct Wanted {
  std::string name;
  Shape shape;    // of the stored tensor
  Region region;  // of it
  TensorView view;
};

Wanted whole(std::string name, const TensorView& view) {
  return {std::move(name), view.shape(), full_region(view.shape()), view};
}

/// Reads parts of tensors of `path` by name into the given views; names, shapes and dtypes must be the same.
void read_all(const std::string& path, const std::vector<Wanted>& wanted) {
  const std::vector<StoredTensor> stored = read_safetensors(path);
  for (const Wanted& each : wanted) {
    const auto found = std::find_if(stored.begin(), stored.end(),
                                    [&](const StoredTensor& tensor) { return tensor.name == each.name; });
    if (found == stored.end() || found->checked_shape() != each.shape || found->dtype != each.view.dtype()) {
      fail<IoError>("{}: tensor {} is missing or is not {} {}; the file belongs to another run", path,
                    each.name, dtype_name(each.view.dtype()), each.shape.str());
    }
    HostDraft draft(each.view);
    read_region(*found, each.region, draft.view());
    draft.commit();
  }
}

/// One source per parameter of the assembled model.
std::vector<TensorSource> sources_of(FederatedRun& run, const std::vector<TensorView>& values) {
  std::vector<TensorSource> sources;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sources.push_back(source_of(run.full_parameters()->all()[i].name(), values[i]));
  }
  return sources;
}

/// The masters of this rank's slice, and of the assembled model on the aggregator.
void read_masters(const std::string& path, FederatedRun& run) {
  std::vector<Wanted> wanted;
  const auto& parameters = run.slice().parameters().all();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    wanted.push_back({parameter.name(), parameter.spec().shape, parameter.region(), run.exact_slice()[i]});
  }
  for (std::size_t i = 0; i < run.exact_full().size(); ++i) {
    wanted.push_back(whole(run.full_parameters()->all()[i].name(), run.exact_full()[i]));
  }
  read_all(path, wanted);
}

}  // namespace

void save_round_state(const std::string& folder, FederatedRun& run, Communicator& world) {
  const std::vector<TensorView>& momentum = run.aggregation().momentum();
  if (!keeps_optimizer(run.config()) && !has_momentum(run.config()) && !run.has_masters()) {
    return;
  }
  if (world.rank() == SliceExchange::kAggregator) {
    fs::create_directories(folder);
  }
  world.barrier();
  if (keeps_optimizer(run.config())) {
    Adamw& optimizer = run.trainer().optimizer();
    auto steps = static_cast<double>(optimizer.steps());
    write_safetensors(slot_file(folder, run.slot()),
                      {source_of("moments", optimizer.state()),
                       source_of("steps", TensorView(&steps, DType::kFloat64, {1}))});
  }
  if (!momentum.empty()) {
    write_safetensors(momentum_file(folder), sources_of(run, momentum));
  }
  if (run.has_masters() && world.rank() == SliceExchange::kAggregator) {
    write_safetensors(masters_file(folder), sources_of(run, run.exact_full()));
  }
  world.barrier();
}

void check_round_state(const std::string& folder, const RunConfig& config, std::int64_t ranks) {
  for (std::int64_t slot = 0; keeps_optimizer(config) && slot < ranks; ++slot) {
    read_safetensors(slot_file(folder, slot));
  }
  if (has_momentum(config)) {
    read_safetensors(momentum_file(folder));
  }
  if (has_masters(config)) {
    read_safetensors(masters_file(folder));
  }
}

void load_round_state(const std::string& folder, FederatedRun& run) {
  if (keeps_optimizer(run.config())) {
    Adamw& optimizer = run.trainer().optimizer();
    double steps = 0.0;
    read_all(slot_file(folder, run.slot()),
             {whole("moments", optimizer.state()), whole("steps", TensorView(&steps, DType::kFloat64, {1}))});
    optimizer.set_steps(static_cast<std::int64_t>(steps));
  }
  const std::vector<TensorView>& momentum = run.aggregation().momentum();
  if (!momentum.empty()) {
    std::vector<Wanted> wanted;
    for (std::size_t i = 0; i < momentum.size(); ++i) {
      wanted.push_back(whole(run.full_parameters()->all()[i].name(), momentum[i]));
    }
    read_all(momentum_file(folder), wanted);
  }
  if (run.has_masters()) {
    read_masters(masters_file(folder), run);
  }
}

}  // namespace caravan

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

bool keeps_optimizer(const RunConfig& config) {
  return config.federated.optimizer_state == OptimizerState::kKeep;
}

bool has_momentum(const RunConfig& config) {
  return config.federated.outer.momentum != 0.0;
}

/// Reads every tensor of `path` by name into the given views; names, shapes and dtypes must be the same.
void read_all(const std::string& path, const std::vector<std::pair<std::string, TensorView>>& wanted) {
  const std::vector<StoredTensor> stored = read_safetensors(path);
  for (const auto& [name, view] : wanted) {
    const auto found = std::find_if(stored.begin(), stored.end(), [&wanted_name = name](const auto& tensor) {
      return tensor.name == wanted_name;
    });
    if (found == stored.end() || found->checked_shape() != view.shape() || found->dtype != view.dtype()) {
      fail<IoError>("{}: tensor {} is missing or is not {}; the file belongs to another run", path, name,
                    view.str());
    }
    HostDraft draft(view);
    read_region(*found, full_region(view.shape()), draft.view());
    draft.commit();
  }
}

}  // namespace

void save_round_state(const std::string& folder, FederatedRun& run, Communicator& world) {
  const std::vector<TensorView>& momentum = run.aggregation().momentum();
  if (!keeps_optimizer(run.config()) && !has_momentum(run.config())) {
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
    std::vector<TensorSource> sources;
    for (std::size_t i = 0; i < momentum.size(); ++i) {
      sources.push_back(source_of(run.full_parameters()->all()[i].name(), momentum[i]));
    }
    write_safetensors(momentum_file(folder), std::move(sources));
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
}

void load_round_state(const std::string& folder, FederatedRun& run) {
  if (keeps_optimizer(run.config())) {
    Adamw& optimizer = run.trainer().optimizer();
    double steps = 0.0;
    read_all(slot_file(folder, run.slot()),
             {{"moments", optimizer.state()}, {"steps", TensorView(&steps, DType::kFloat64, {1})}});
    optimizer.set_steps(static_cast<std::int64_t>(steps));
  }
  const std::vector<TensorView>& momentum = run.aggregation().momentum();
  if (!momentum.empty()) {
    std::vector<std::pair<std::string, TensorView>> wanted;
    for (std::size_t i = 0; i < momentum.size(); ++i) {
      wanted.emplace_back(run.full_parameters()->all()[i].name(), momentum[i]);
    }
    read_all(momentum_file(folder), wanted);
  }
}

}  // namespace caravan

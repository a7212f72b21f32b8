#include "caravan/io/config_differences.h"

#include <algorithm>
#include <array>

#include "caravan/core/error.h"
#include "caravan/io/yaml_config.h"

namespace caravan {
namespace {

constexpr std::array<std::string_view, 15> kMayChange = {"resume",
                                                         "device",
                                                         "attention",
                                                         "cuda_graphs",
                                                         "threads",
                                                         "parallel",
                                                         "federated",
                                                         "training.steps",
                                                         "training.epochs",
                                                         "training.eval_every",
                                                         "training.micro_batch",
                                                         "training.recompute",
                                                         "checkpoint",
                                                         "comm",
                                                         "output"};
constexpr std::array<std::string_view, 4> kChangesResults = {"optimizer", "training.clip_norm",
                                                             "training.loss_scale", "training.dropout"};
/// What the optimizer's state consists of.
constexpr std::array<std::string_view, 2> kKind = {"optimizer.name", "optimizer.master_weights"};

/// True for the keys themselves and for what lies below them.
bool is_among(const std::string& key, std::span<const std::string_view> keys) {
  return std::any_of(keys.begin(), keys.end(), [&](std::string_view section) {
    return key.starts_with(section) && (key.size() == section.size() || key[section.size()] == '.');
  });
}

}  // namespace

std::string ConfigDifference::str() const {
  return fmt::format("{} was {} and is {} now", key, before, now);
}

std::vector<ConfigDifference> config_differences(const RunConfig& before, const RunConfig& now,
                                                 std::span<const std::string_view> ignored) {
  const auto old_values = config_values(before);
  const auto new_values = config_values(now);
  CARAVAN_CHECK(old_values.size() == new_values.size(), "configurations with {} and {} values",
                old_values.size(), new_values.size());
  std::vector<ConfigDifference> differences;
  for (std::size_t i = 0; i < old_values.size(); ++i) {
    const auto& [key, value] = old_values[i];
    if (value != new_values[i].second && !is_among(key, ignored)) {
      differences.push_back({key, value, new_values[i].second});
    }
  }
  return differences;
}

std::string unused_values(const RunConfig& config) {
  const auto unused = unused_keys(config.mode);
  std::string text;
  for (const ConfigDifference& value : config_differences(RunConfig{}, config)) {
    if (is_among(value.key, unused)) {
      text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", value.key, value.now);
    }
  }
  return text;
}

std::vector<ConfigDifference> check_resumable(const std::string& stored, const std::string& found,
                                              const RunConfig& now) {
  const RunConfig before = parse_run_config(stored, found, {});
  std::vector<ConfigDifference> differences = config_differences(before, now, kMayChange);
  for (const ConfigDifference& difference : differences) {
    if (!is_among(difference.key, kChangesResults) || is_among(difference.key, kKind)) {
      fail<ConfigError>(
          "resume: this is not the run of {}: {}; put the old value back, or start a new run in another "
          "output.dir",
          found, difference.str());
    }
  }
  return differences;
}

}  // namespace caravan

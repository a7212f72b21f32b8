// Which values of two configurations differ, and which of those a run may change when it goes on from a
// checkpoint.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/config/run_config.h"

namespace caravan {

struct ConfigDifference {
  std::string key;     // dotted
  std::string before;  // as in the effective configuration
  std::string now;

  friend bool operator==(const ConfigDifference&, const ConfigDifference&) = default;
  /// "optimizer.lr was 0.001 and is 0.002 now"
  std::string str() const;
};

/// In the order of the keys; those in `ignored` and below them are left out.
std::vector<ConfigDifference> config_differences(const RunConfig& before, const RunConfig& now,
                                                 std::span<const std::string_view> ignored = {});

/// What the configuration asks for and its mode never looks at: "training.batch_size (64), checkpoint.every
/// (10)", the values that are not the defaults. Empty where there is nothing.
std::string unused_values(const RunConfig& config);

/// Whether a synchronous run with the configuration `now` may go on from the checkpoint `found`, whose
/// effective configuration is `stored` (YAML). Steps, layout (parallel, threads), device, checkpoint, output,
/// how often it is evaluated and anything about federated rounds may differ. The values of the optimizer and
/// the clipping may as well, but change what is computed: they are returned, to be said. Everything else
/// (model, data, seed, dtype, batch, kind of optimizer) must be the same: else ConfigError with the first
/// such key and both values.
std::vector<ConfigDifference> check_resumable(const std::string& stored, const std::string& found,
                                              const RunConfig& now);

}  // namespace caravan

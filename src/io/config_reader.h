// Fills a configuration from a YAML tree by walking the structs' fields, and remembers where each key stands.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "caravan/config/run_config.h"
#include "yaml_tree.h"

namespace caravan {

struct ReadConfig {
  RunConfig config;
  std::map<std::string, yaml::Place> places;  // dotted key → where its value stands
  std::map<std::string, bool> is_wrong;       // keys whose value could not be read
};

/// Reads every known key of `root`; unknown keys and wrong types add to `problems` and leave the default.
ReadConfig read_config(const yaml::Node& root, std::vector<yaml::Problem>& problems);

}  // namespace caravan

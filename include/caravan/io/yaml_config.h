// A run's configuration from YAML and back. The keys come from config/run_config_fields.h alone.
//
// Files compose: `include: base.yaml` (or a list, in order) at the top of a file reads others first, relative
// to the file that names them; sections merge key by key, anything else is replaced, the including file wins.
// `--set a.b=c` replaces one value after all files, c being YAML. Paths among the values are relative to the
// folder the program is started in; `~` is the home folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "caravan/config/run_config.h"

namespace caravan {

/// Reads and checks a configuration file with its includes and overrides ("a.b=c" each). Creates and
/// allocates nothing else. Throws ConfigError with one line per problem, all problems at once:
/// file:line:column, dotted key, what is there, what would be right.
RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides);

/// The same for text already read, such as the effective configuration in a results file; `source` stands for
/// the file's name in messages. Includes are relative to the current folder.
RunConfig parse_run_config(const std::string& text, const std::string& source,
                           const std::vector<std::string>& overrides);

/// The effective configuration: every key with its value. parse_run_config gives the same struct back.
std::string to_yaml(const RunConfig& config);
/// The same as pairs of dotted key and value, in order; every configuration has the same keys.
std::vector<std::pair<std::string, std::string>> config_values(const RunConfig& config);

/// Every key with its default, what it may be and a line of help, for people.
std::string key_reference();

}  // namespace caravan

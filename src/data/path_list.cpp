#include "caravan/data/path_list.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "caravan/core/error.h"

namespace caravan {
namespace {

std::vector<std::string> glob_matches(const std::string& pattern) {
  struct Matches {
    glob_t found{};
    ~Matches() { ::globfree(&found); }
  } matches;
  const int status = ::glob(pattern.c_str(), GLOB_ERR | GLOB_NOSORT, nullptr, &matches.found);
  if (status == GLOB_NOMATCH) {
    fail<IoError>("no file matches the pattern `{}`; give a path or pattern that has matches", pattern);
  }
  if (status != 0) {
    fail<IoError>("the pattern `{}` cannot be expanded: {}", pattern,
                  status == GLOB_ABORTED ? "a folder in it cannot be read" : "out of memory");
  }
  std::vector<std::string> paths(matches.found.gl_pathv, matches.found.gl_pathv + matches.found.gl_pathc);
  std::sort(paths.begin(), paths.end());  // glob's own order depends on the locale
  return paths;
}

void check_is_file(const std::string& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (!std::filesystem::exists(status)) {
    fail<IoError>("{}: there is no such data file", path);
  }
  if (std::filesystem::is_directory(status)) {
    fail<IoError>("{}: is a folder; name its files, for example `{}/*.jsonl`", path, path);
  }
  if (!std::filesystem::is_regular_file(status)) {
    fail<IoError>("{}: is not a regular file; data files are read more than once", path);
  }
}

}  // namespace

std::vector<std::string> expand_paths(const std::vector<std::string>& patterns) {
  if (patterns.empty()) {
    fail<ConfigError>("the list of data files is empty; give a path, a list of paths, or a glob");
  }
  std::vector<std::string> paths;
  for (const std::string& pattern : patterns) {
    std::error_code ignored;
    const bool is_glob = pattern.find_first_of("*?[") != std::string::npos;
    if (is_glob && !std::filesystem::exists(pattern, ignored)) {
      const auto matches = glob_matches(pattern);
      paths.insert(paths.end(), matches.begin(), matches.end());
    } else {
      paths.push_back(pattern);
    }
  }
  std::for_each(paths.begin(), paths.end(), check_is_file);
  return paths;
}

}  // namespace caravan

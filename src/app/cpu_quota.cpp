#include "cpu_quota.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace caravan::app {
namespace {

/// Version 2: "200000 100000" or "max 100000".
std::optional<double> read_max(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0.0;
  double period = 0.0;
  if (file >> quota >> period && quota > 0.0 && period > 0.0) {
    return quota / period;
  }
  return std::nullopt;
}

/// Version 1: one number in each of two files; a quota of -1 is none.
std::optional<double> read_cfs(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double quota = 0.0;
  double period = 0.0;
  if (quota_file >> quota && period_file >> period && quota > 0.0 && period > 0.0) {
    return quota / period;
  }
  return std::nullopt;
}

/// The least limit of `path` and everything above it. A container often sees its own group as the root, with
/// a path in /proc/self/cgroup that does not exist inside: the levels that do are read.
template <class Read>
std::optional<double> least(const std::string& mount, std::string path, const Read& read) {
  std::optional<double> result;
  for (;;) {
    if (const std::optional<double> here = read(mount + path)) {
      result = result ? std::min(*result, *here) : *here;
    }
    if (path.empty()) {
      return result;
    }
    path.erase(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

std::optional<double> cpu_quota(const std::string& groups, const std::string& mount) {
  std::istringstream lines(groups);
  std::string line;
  std::optional<double> result;
  while (std::getline(lines, line)) {  // number:controllers:path
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    const std::string path = line.substr(second + 1);
    std::optional<double> here;
    if (controllers == ",,") {
      here = least(mount, path, read_max);
    } else if (controllers.find(",cpu,") != std::string::npos) {
      here = least(mount + "/cpu", path, read_cfs);
    }
    if (here) {
      result = result ? std::min(*result, *here) : *here;
    }
  }
  return result;
}

std::optional<double> cpu_quota() {
  std::ifstream file("/proc/self/cgroup");
  std::ostringstream groups;
  groups << file.rdbuf();
  return cpu_quota(groups.str(), "/sys/fs/cgroup");
}

}  // namespace caravan::app

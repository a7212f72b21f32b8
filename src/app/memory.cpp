#include "memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>

#include "caravan/federated/run_plan.h"

namespace caravan::app {
namespace {

namespace fs = std::filesystem;

/// Version 1 writes "no limit" as the largest multiple of a page.
constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max() / 2;

std::optional<std::int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  return (file >> value) ? std::optional<std::int64_t>(value) : std::nullopt;  // "max" is no number
}

std::int64_t field_of(const fs::path& path, const std::string& name) {
  std::ifstream file(path);
  std::string key;
  std::int64_t value = 0;
  while (file >> key >> value) {
    if (key == name) {
      return value;
    }
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

/// The files of one version of control groups.
struct GroupFiles {
  const char* base;
  const char* limit;
  const char* usage;
  const char* cache;  // in memory.stat: pages of files that go when memory is short
};
constexpr GroupFiles kVersion1 = {"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                  "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};

/// The smallest room in the group at `path` and the ones above it. In a container the path may be the host's;
/// then only the root of what is mounted exists, which is the container's own group.
std::int64_t room_in_groups(const fs::path& root, const GroupFiles& files, const std::string& path) {
  const fs::path base = root / files.base;
  std::int64_t room = kNoLimit;
  for (fs::path group = fs::path(path).relative_path();; group = group.parent_path()) {
    const fs::path folder = base / group;
    const auto limit = number_in(folder / files.limit);
    if (limit && *limit < kNoLimit) {
      const std::int64_t used = number_in(folder / files.usage).value_or(0);
      const std::int64_t cache = field_of(folder / "memory.stat", files.cache);
      room = std::min(room, std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, used - cache)));
    }
    if (group.empty()) {
      return room;
    }
  }
}

}  // namespace

std::int64_t available_memory_bytes(const std::string& root) {
  const fs::path top = root.empty() ? "/" : root;
  const std::int64_t free_kib = field_of(top / "proc/meminfo", "MemAvailable:");
  std::int64_t available = free_kib > 0 ? free_kib * 1024 : kNoLimit;
  std::ifstream groups(top / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // number:controllers:path
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      available = std::min(available, room_in_groups(top, kVersion2, path));
    } else if (controllers.find(",memory,") != std::string::npos) {
      available = std::min(available, room_in_groups(top, kVersion1, path));
    }
  }
  return available == kNoLimit ? 0 : available;
}

std::vector<std::string> memory_shortages(const std::vector<RankNeed>& ranks) {
  std::vector<RankNeed> hosts;
  for (const RankNeed& rank : ranks) {
    const auto found = std::find_if(hosts.begin(), hosts.end(),
                                    [&](const RankNeed& host) { return host.host == rank.host; });
    if (found == hosts.end()) {
      hosts.push_back(rank);
      continue;
    }
    found->wanted_bytes += rank.wanted_bytes;
    // A rank that knows nothing says 0.
    if (found->available_bytes == 0 ||
        (rank.available_bytes > 0 && rank.available_bytes < found->available_bytes)) {
      found->available_bytes = rank.available_bytes;
    }
  }
  std::vector<std::string> sentences;
  for (const RankNeed& host : hosts) {
    if (host.available_bytes > 0 && host.wanted_bytes > host.available_bytes) {
      sentences.push_back(
          fmt::format("the ranks on {} need {}, {} are available to them; use fewer ranks per machine, a "
                      "smaller batch or a "
                      "shorter data.max_seq_len",
                      host.host, format_bytes(host.wanted_bytes), format_bytes(host.available_bytes)));
    }
  }
  return sentences;
}

}  // namespace caravan::app

// The limit that a container or a batch system puts on processor time, apart from which cores may be used.
#pragma once

#include <optional>
#include <string>

namespace caravan::app {

/// Cores' worth of time per second that the control groups named in `groups` (the text of /proc/self/cgroup)
/// allow, the least over all levels; nullopt where none is set. `mount`: where the groups are mounted,
/// normally /sys/fs/cgroup. Both versions of control groups are understood.
std::optional<double> cpu_quota(const std::string& groups, const std::string& mount);
/// Of this process.
std::optional<double> cpu_quota();

}  // namespace caravan::app

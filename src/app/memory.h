// How much memory the ranks of a machine may still take. What is known of it: the machine's own figure, and
// the limits of control groups (a Slurm job, a container), which are often lower.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caravan::app {

/// Bytes this process may still take, 0 where nothing is known. `root` is another place than / in tests.
std::int64_t available_memory_bytes(const std::string& root = "");

/// One rank: what it will hold and what its machine says is available.
struct RankNeed {
  std::string host;
  std::int64_t wanted_bytes = 0;
  std::int64_t available_bytes = 0;
};

/// One sentence per machine whose ranks together want more than is available there.
std::vector<std::string> memory_shortages(const std::vector<RankNeed>& ranks);

}  // namespace caravan::app

// What a launch was doing, in words: who waits where, who has returned.
#include <map>
#include <tuple>

#include "host_runner/runner.h"

namespace caravan::host_runner {

const char* schedule_name(Schedule schedule) {
  switch (schedule) {
    case Schedule::kForward:
      return "forward";
    case Schedule::kReverse:
      return "reverse";
    case Schedule::kRandomThread:
      return "random thread";
    case Schedule::kRandomWarp:
      return "random warp";
  }
  return "";
}

std::string Runner::where_am_i() const {
  return fmt::format("kernel {}, block ({}, {}, {}), schedule {}, seed {}", name_, blockIdx.x, blockIdx.y,
                     blockIdx.z, schedule_name(options_.schedule), options_.seed);
}

namespace {

/// "0-31, 40"
std::string ranges(const std::vector<int>& sorted) {
  std::string text;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t last = i;
    while (last + 1 < sorted.size() && sorted[last + 1] == sorted[last] + 1) {
      ++last;
    }
    text += fmt::format("{}{}", text.empty() ? "" : ", ", sorted[i]);
    if (last > i) {
      text += fmt::format("-{}", sorted[last]);
    }
    i = last + 1;
  }
  return text;
}

}  // namespace

/// "threads 0-31 wait in __syncthreads at norm.cu:40; threads 32-63 have returned"
std::string Runner::describe_threads() const {
  using Key = std::tuple<Thread::Place, std::string, std::string, int, unsigned>;
  std::map<Key, std::vector<int>> groups;
  for (int index = 0; index < n_threads_; ++index) {
    const Thread& thread = *team_->threads[static_cast<std::size_t>(index)];
    const unsigned mask = thread.place == Thread::Place::kWarp ? thread.mask : 0;
    groups[{thread.place, thread.operation, thread.site.file, thread.site.line, mask}].push_back(index);
  }
  std::string text;
  for (const auto& [key, indices] : groups) {
    const auto& [place, operation, file, line, mask] = key;
    text += fmt::format("{}threads {} ", text.empty() ? "" : "; ", ranges(indices));
    switch (place) {
      case Thread::Place::kReady:
        text += "are running";
        break;
      case Thread::Place::kReturned:
        text += "have returned";
        break;
      case Thread::Place::kBarrier:
      case Thread::Place::kCondition:
        text += fmt::format("wait in {} at {}:{}", operation, file, line);
        break;
      case Thread::Place::kWarp:
        text += fmt::format("wait in {} with mask {:#010x} at {}:{}", operation, mask, file, line);
        break;
    }
  }
  return text;
}

std::string Runner::why_stuck() const {
  return fmt::format("{}: no thread can go on: {}", where_am_i(), describe_threads());
}

}  // namespace caravan::host_runner

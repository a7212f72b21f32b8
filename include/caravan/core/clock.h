// Elapsed time, monotonic, in seconds; and the time of day for records.
#pragma once

#include <chrono>
#include <string>

namespace caravan {

class StopWatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  void restart() { start_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Now, ISO 8601 in UTC, whole seconds: "2031-05-04T18:30:05Z".
std::string utc_timestamp();

}  // namespace caravan

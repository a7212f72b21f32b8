// Ends a job whose ranks wait for each other: without it a rank that misses a collective leaves the others
// waiting for ever, without a word.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace caravan {

/// Looks at this rank's OperationLog from a thread of its own.
class CommWatch {
 public:
  /// `on_timeout` is called once, in the watch's thread and while the rank's own thread is still blocked,
  /// when it has been blocked in one operation for `limit_seconds`; with the sentence that says so and the
  /// rank's last operations below it, one a line.
  CommWatch(double limit_seconds, std::function<void(const std::string& report)> on_timeout);
  ~CommWatch();
  CommWatch(const CommWatch&) = delete;
  CommWatch& operator=(const CommWatch&) = delete;
  CommWatch(CommWatch&&) = delete;
  CommWatch& operator=(CommWatch&&) = delete;

 private:
  void watch();

  double limit_seconds_;
  std::function<void(const std::string&)> on_timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace caravan

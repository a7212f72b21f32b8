// Ends a job whose ranks wait for each other: without it a rank that misses a collective leaves the others
// waiting for ever, without a word.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace caravan {

/// A group whose work goes on, and fails, beside the thread that asked for it.
class WatchedGroup {
 public:
  WatchedGroup() = default;
  virtual ~WatchedGroup() = default;
  WatchedGroup(const WatchedGroup&) = delete;
  WatchedGroup& operator=(const WatchedGroup&) = delete;
  WatchedGroup(WatchedGroup&&) = delete;
  WatchedGroup& operator=(WatchedGroup&&) = delete;

  /// From the watch's thread: a sentence when something is wrong, or when the group has waited for other
  /// ranks longer than `limit_seconds`.
  virtual std::optional<std::string> trouble(double limit_seconds) = 0;

 protected:
  /// A derived class calls these at the end of its construction, and first in its destruction.
  void begin_watched();
  void end_watched();
};

/// Looks at this rank's OperationLog and at every WatchedGroup from a thread of its own.
class CommWatch {
 public:
  /// `on_timeout` is called once, in the watch's thread and while the rank's own thread is still blocked,
  /// when it has been blocked in one operation for `limit_seconds` (infinity: never), or when a group has
  /// trouble; with the sentence that says so and the rank's last operations below it, one a line.
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

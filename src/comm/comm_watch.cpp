#include "caravan/comm/comm_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <vector>

#include "caravan/comm/operation_log.h"

namespace caravan {
namespace {

constexpr std::size_t kLastOperations = 8;

struct WatchedGroups {
  std::mutex mutex;
  std::vector<WatchedGroup*> groups;
};
WatchedGroups& watched() {
  static WatchedGroups& groups = *new WatchedGroups;  // never destroyed: groups may go after static objects
  return groups;
}

std::optional<std::string> find_trouble(double limit_seconds) {
  const std::lock_guard lock(watched().mutex);
  try {
    for (WatchedGroup* group : watched().groups) {
      if (auto trouble = group->trouble(limit_seconds)) {
        return trouble;
      }
    }
  } catch (const std::exception& error) {  // a device that fails tells whoever asks it anything
    return error.what();
  }
  return std::nullopt;
}

}  // namespace

void WatchedGroup::begin_watched() {
  const std::lock_guard lock(watched().mutex);
  watched().groups.push_back(this);
}

void WatchedGroup::end_watched() {
  const std::lock_guard lock(watched().mutex);
  std::erase(watched().groups, this);
}

CommWatch::CommWatch(double limit_seconds, std::function<void(const std::string&)> on_timeout)
    : limit_seconds_(limit_seconds), on_timeout_(std::move(on_timeout)), thread_([this] { watch(); }) {}

CommWatch::~CommWatch() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void CommWatch::watch() {
  const std::chrono::duration<double> pause(std::min(1.0, limit_seconds_ / 10));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, pause, [this] { return is_ending_; })) {
    const OperationLog& log = OperationLog::of_this_rank();
    auto trouble = find_trouble(limit_seconds_);
    const auto blocked = log.blocked();
    if (!trouble && blocked && blocked->seconds >= limit_seconds_) {
      trouble = waited_too_long(blocked->seconds, blocked->operation);
    }
    if (trouble) {
      lock.unlock();
      on_timeout_(fmt::format("{}; its last operations:\n{}", *trouble, log.describe_last(kLastOperations)));
      return;
    }
  }
}

}  // namespace caravan

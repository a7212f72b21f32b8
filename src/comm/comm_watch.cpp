#include "caravan/comm/comm_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "caravan/comm/operation_log.h"

namespace caravan {
namespace {

constexpr std::size_t kLastOperations = 8;

}  // namespace

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
    const auto blocked = log.blocked();
    if (!blocked || blocked->seconds < limit_seconds_) {
      continue;
    }
    lock.unlock();
    on_timeout_(fmt::format("has waited {:.1f} s for other ranks in {}; its last operations:\n{}",
                            blocked->seconds, describe(blocked->operation),
                            log.describe_last(kLastOperations)));
    return;
  }
}

}  // namespace caravan

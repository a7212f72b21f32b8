#include "caravan/comm/operation_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace caravan {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// "parallel/tensor_boundary.cpp": the last folder and the name say enough.
std::string_view short_path(std::string_view path) {
  const std::size_t name = path.rfind('/');
  if (name == std::string_view::npos || name == 0) {
    return path;
  }
  const std::size_t folder = path.rfind('/', name - 1);
  return folder == std::string_view::npos ? path : path.substr(folder + 1);
}

}  // namespace

std::string describe(const CommOperation& operation) {
  return fmt::format("{} number {} of group {} (rank {} of {} there), {} bytes, from {}:{}", operation.what,
                     operation.number, operation.group.data(), operation.rank, operation.size,
                     operation.bytes, short_path(operation.site.file), operation.site.line);
}

std::string waited_too_long(double seconds, const CommOperation& operation) {
  return fmt::format("has waited {:.1f} s for other ranks in {}", seconds, describe(operation));
}

OperationLog& OperationLog::of_this_rank() {
  static OperationLog log;
  return log;
}

OperationLog::Ticket OperationLog::add(const CommOperation& operation, State state) {
  const Ticket ticket = next_++;
  ring_.at(ticket % kCapacity) = {operation, state, now_seconds(), 0.0};
  return ticket;
}

OperationLog::Entry* OperationLog::find(Ticket ticket) {
  return ticket + kCapacity >= next_ ? &ring_.at(ticket % kCapacity) : nullptr;
}

OperationLog::Ticket OperationLog::begin_blocking(const CommOperation& operation) {
  const std::lock_guard lock(mutex_);
  const Ticket ticket = add(operation, State::kBlocked);
  blocked_ = ticket;
  blocked_in_ = operation;
  blocked_since_ = now_seconds();
  return ticket;
}

OperationLog::Ticket OperationLog::begin_started(const CommOperation& operation) {
  const std::lock_guard lock(mutex_);
  return add(operation, State::kStarted);
}

void OperationLog::wait_begins(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  Entry* entry = find(ticket);
  blocked_ = ticket;
  // One that newer ones have pushed out of the ring is known by its number no more.
  blocked_in_ = entry != nullptr ? entry->operation : CommOperation();
  blocked_since_ = now_seconds();
  if (entry != nullptr) {
    entry->state = State::kBlocked;
  }
}

void OperationLog::end(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  if (blocked_ == ticket) {
    blocked_ = 0;
  }
  if (Entry* entry = find(ticket)) {
    entry->state = State::kEnded;
    entry->ended = now_seconds();
  }
}

std::optional<OperationLog::Blocked> OperationLog::blocked() const {
  const std::lock_guard lock(mutex_);
  if (blocked_ == 0) {
    return std::nullopt;
  }
  return Blocked{blocked_in_, now_seconds() - blocked_since_};
}

std::string OperationLog::describe_last(std::size_t count) const {
  const std::lock_guard lock(mutex_);
  const double now = now_seconds();
  const Ticket made = next_ - 1;
  std::string text;
  for (Ticket ticket = next_ - std::min<Ticket>({made, count, kCapacity}); ticket < next_; ++ticket) {
    const Entry& entry = ring_.at(ticket % kCapacity);
    text += fmt::format("  {:.3f} s ago: {}: ", now - entry.begun, describe(entry.operation));
    text += entry.state == State::kEnded     ? fmt::format("took {:.3f} s\n", entry.ended - entry.begun)
            : entry.state == State::kStarted ? "started, not waited on\n"
                                             : "not ended\n";
  }
  return text;
}

}  // namespace caravan

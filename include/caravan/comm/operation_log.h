// What this rank last did with other ranks: a ring of its operations, printed when one of them does not end.
// A rank that waits for ever shows nothing else of what it waits for.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "caravan/backend/pending.h"

namespace caravan {

/// Where in the source an operation was asked for.
struct CallSite {
  const char* file = "";
  int line = 0;
  /// The caller's, as a default argument. (std::source_location needs a later clang than the checks have.)
  static constexpr CallSite current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// One operation of a group of ranks.
struct CommOperation {
  std::string_view what = "an operation started long ago";  // or "all_reduce"; a literal
  std::array<char, 24> group{};                             // "tp": the group's name, cut
  int rank = 0;                                             // this rank in the group
  int size = 1;                                             // and its members
  std::int64_t number = 0;  // of the group's operations here, from 1: members should agree
  std::int64_t bytes = 0;   // of the tensor
  CallSite site;
};

/// The newest operations of one rank. All functions may be called from any thread; operations themselves come
/// from one.
class OperationLog final : public WaitObserver {
 public:
  using Ticket = std::uint64_t;
  static constexpr std::size_t kCapacity = 64;

  /// The log of this process.
  static OperationLog& of_this_rank();

  /// A blocking operation, until end().
  Ticket begin_blocking(const CommOperation& operation);
  /// A started one: nobody is blocked by it until wait_begins().
  Ticket begin_started(const CommOperation& operation);
  void end(Ticket ticket);
  void wait_begins(Ticket ticket) override;
  void wait_ends(Ticket ticket) override { end(ticket); }

  /// What this rank is blocked in at the moment.
  struct Blocked {
    CommOperation operation;
    double seconds = 0.0;
  };
  std::optional<Blocked> blocked() const;
  /// The last `count` operations, one a line, the newest last; empty without any.
  std::string describe_last(std::size_t count) const;

 private:
  enum class State : std::uint8_t { kStarted, kBlocked, kEnded };
  struct Entry {
    CommOperation operation;
    State state = State::kEnded;
    double begun = 0.0;  // seconds of a steady clock
    double ended = 0.0;
  };
  Ticket add(const CommOperation& operation, State state);
  /// Null when newer operations have taken its place.
  Entry* find(Ticket ticket);

  mutable std::mutex mutex_;
  std::array<Entry, kCapacity> ring_;
  Ticket next_ = 1;
  Ticket blocked_ = 0;  // 0: nothing
  CommOperation blocked_in_;
  double blocked_since_ = 0.0;
};

/// "all_reduce number 17 of group tp (rank 0 of 2 there), 4096 bytes, from parallel/tensor_boundary.cpp:21"
std::string describe(const CommOperation& operation);
/// "has waited 30.0 s for other ranks in " and the description.
std::string waited_too_long(double seconds, const CommOperation& operation);

}  // namespace caravan

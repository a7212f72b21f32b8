// What was started on this rank and waits for bytes to arrive from a device before the library can be called.
#pragma once

#include <deque>
#include <functional>

#include "caravan/backend/device_streams.h"

namespace caravan::detail {

/// One queue for all groups of the process, because libraries pair what groups start by its order, and
/// because a rank that blocks while something it has started is not even known to the library may wait for a
/// rank that waits for it. So everything that blocks calls flush() first.
class StartQueue {
 public:
  static StartQueue& of_this_rank();

  /// `start` is called once, when `ready` is done and everything before it has been started; it keeps its
  /// errors to itself.
  void push(Mark ready, std::function<void()> start);
  /// Starts everything; waits for the device alone, never for other ranks.
  void flush();
  /// Starts what is ready; never blocks.
  void advance();

 private:
  struct Entry {
    Mark ready;
    std::function<void()> start;
  };
  void start_first();

  std::deque<Entry> entries_;
};

}  // namespace caravan::detail

// Work of a step that a device has recorded: forward and backward passes by the shape of their batch, and
// what stands before and after them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

#include "caravan/backend/context.h"
#include "caravan/backend/recording.h"
#include "caravan/comm/recorded_exchanges.h"

namespace caravan {

/// Work that enqueues the same ops on the same memory each time. It runs op by op the first time, so that
/// everything it needs is there; is recorded the second time; and replayed from then on. Launching is then
/// one call instead of some thirty per layer.
class RecordedWork {
 public:
  /// `groups`: those that the work calls (RecordedExchanges).
  explicit RecordedWork(std::vector<Communicator*> groups) : exchanges_(std::move(groups)) {}

  /// `result`: where the work leaves its result, which tells that memory is where it was when it was
  /// recorded. `work` enqueues on ctx.stream, calls groups, waits for nothing and reads nothing back. All
  /// ranks of the groups run the same work at the same places.
  void run(Context& ctx, const void* result, const std::function<void()>& work);

  std::int64_t replays() const { return replays_; }

 private:
  bool has_run_ = false;
  const void* result_ = nullptr;
  std::unique_ptr<Recording> recording_;
  RecordedExchanges exchanges_;
  std::int64_t replays_ = 0;
};

class RecordedPasses {
 public:
  explicit RecordedPasses(std::vector<Communicator*> groups) : groups_(std::move(groups)) {}

  /// Batches of one shape enqueue the same ops on the same memory.
  using Shape = std::tuple<std::int64_t, std::int64_t, bool, MaskKind>;  // rows, tokens of a row, the step's
                                                                         // last one, what attention sees

  void run(Context& ctx, const Shape& shape, const void* result, const std::function<void()>& pass);

  std::int64_t replays() const;

 private:
  /// Rows that are padded to their longest come in many lengths; a recording holds some memory.
  static constexpr std::size_t kMostRecordings = 16;

  std::vector<Communicator*> groups_;
  std::map<Shape, RecordedWork> passes_;
};

}  // namespace caravan

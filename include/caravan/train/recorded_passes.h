// Forward and backward passes that a device has recorded, by the shape of their batch.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

#include "caravan/backend/context.h"
#include "caravan/backend/recording.h"

namespace caravan {

/// A pass of a shape runs op by op the first time, so that everything it needs is there; is recorded the
/// second time; and replayed from then on. Launching is then one call instead of some thirty per layer.
class RecordedPasses {
 public:
  /// Batches of one shape enqueue the same ops on the same memory.
  using Shape = std::tuple<std::int64_t, std::int64_t, bool, MaskKind>;  // rows, tokens of a row, the step's
                                                                         // last one, what attention sees

  /// `result`: where the pass leaves its result, which tells that memory is where it was when it was
  /// recorded. `pass` enqueues on ctx.stream alone, waits for nothing and reads nothing back.
  void run(Context& ctx, const Shape& shape, const void* result, const std::function<void()>& pass);

  std::int64_t replays() const { return replays_; }

 private:
  /// Rows that are padded to their longest come in many lengths; a recording holds some memory.
  static constexpr std::size_t kMostRecordings = 16;

  struct Entry {
    const void* result = nullptr;
    std::unique_ptr<Recording> recording;
  };
  std::map<Shape, Entry> entries_;
  std::int64_t replays_ = 0;
};

}  // namespace caravan

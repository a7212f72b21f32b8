#include "caravan/train/recorded_passes.h"

#include "caravan/core/error.h"

namespace caravan {

void RecordedPasses::run(Context& ctx, const Shape& shape, const void* result,
                         const std::function<void()>& pass) {
  const auto found = entries_.find(shape);
  if (found == entries_.end()) {
    if (entries_.size() < kMostRecordings) {
      entries_.emplace(shape, Entry{result, nullptr});
    }
    pass();
    return;
  }
  Entry& entry = found->second;
  CARAVAN_CHECK(entry.result == result, "a recorded pass finds its memory at another place");
  // Inside a recording nothing is sent; kernels read the scalars where they are now.
  ctx.backend.send_scalars(ctx.scalars, ctx.stream);
  if (!entry.recording) {
    ctx.backend.begin_recording(ctx.stream);
    pass();
    entry.recording = ctx.backend.end_recording(ctx.stream);
  }
  entry.recording->replay(ctx.stream);
  ++replays_;
}

}  // namespace caravan

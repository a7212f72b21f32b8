#include "caravan/train/recorded_passes.h"

#include <numeric>

#include "caravan/core/error.h"

namespace caravan {

void RecordedWork::run(Context& ctx, const void* result, const std::function<void()>& work) {
  if (!has_run_) {
    has_run_ = true;
    result_ = result;
    work();
    return;
  }
  CARAVAN_CHECK(result_ == result, "recorded work finds its memory at another place");
  // Inside a recording nothing is sent; kernels read the scalars where they are now.
  ctx.backend.send_scalars(ctx.scalars, ctx.stream);
  if (!recording_) {
    ctx.backend.begin_recording(ctx.stream);
    exchanges_.record(work);
    recording_ = ctx.backend.end_recording(ctx.stream);
  }
  exchanges_.replay([&] { recording_->replay(ctx.stream); });
  ++replays_;
}

void RecordedPasses::run(Context& ctx, const Shape& shape, const void* result,
                         const std::function<void()>& pass) {
  const auto found = passes_.find(shape);
  if (found != passes_.end()) {
    found->second.run(ctx, result, pass);
  } else if (passes_.size() < kMostRecordings) {
    passes_.try_emplace(shape, groups_).first->second.run(ctx, result, pass);
  } else {
    pass();
  }
}

std::int64_t RecordedPasses::replays() const {
  return std::accumulate(passes_.begin(), passes_.end(), std::int64_t{0},
                         [](std::int64_t sum, const auto& pass) { return sum + pass.second.replays(); });
}

}  // namespace caravan

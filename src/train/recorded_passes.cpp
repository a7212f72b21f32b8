#include "caravan/train/recorded_passes.h"

#include <exception>
#include <numeric>

#include "caravan/core/error.h"

namespace caravan {

namespace {

/// A recording that does not outlive an error: what is captured holds the communicators that it calls, which
/// could not be given up while the error is on its way to where it is told.
class OpenRecording {
 public:
  explicit OpenRecording(Context& ctx) : ctx_(ctx) { ctx_.backend.begin_recording(ctx_.stream); }
  ~OpenRecording() {
    if (is_open_) {
      try {
        end();
      } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): another error is on its way
      }
    }
  }
  OpenRecording(const OpenRecording&) = delete;
  OpenRecording& operator=(const OpenRecording&) = delete;
  OpenRecording(OpenRecording&&) = delete;
  OpenRecording& operator=(OpenRecording&&) = delete;

  std::unique_ptr<Recording> end() {
    is_open_ = false;
    return ctx_.backend.end_recording(ctx_.stream);
  }

 private:
  Context& ctx_;
  bool is_open_ = true;
};

}  // namespace

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
    OpenRecording open(ctx);
    exchanges_.record(work);
    recording_ = open.end();
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

// Work that was started and must be waited on exactly once (a reduction that weight products hide).
#pragma once

#include <functional>
#include <utility>

#include "caravan/core/error.h"

namespace caravan {

class Pending {
 public:
  /// Nothing to wait for.
  Pending() = default;
  /// `finish` completes the work; it is called once, by wait(), and what it holds is released with it.
  explicit Pending(std::function<void()> finish) : finish_(std::move(finish)), open_(true) {}
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  Pending(Pending&& other) noexcept
      : finish_(std::move(other.finish_)), open_(std::exchange(other.open_, false)) {}
  Pending& operator=(Pending&& other) noexcept {
    std::swap(finish_, other.finish_);
    std::swap(open_, other.open_);
    return *this;
  }
  /// Dropping unfinished work would leave a message in flight; it is completed here, its errors are lost.
  ~Pending() {
    if (open_) {
      try {
        finish_();
      } catch (...) {  // NOLINT(bugprone-empty-catch): a destructor may not throw
      }
    }
  }

  bool is_open() const { return open_; }
  void wait() {
    if (open_) {
      open_ = false;
      const std::function<void()> finish = std::exchange(finish_, nullptr);
      finish();
    }
  }

 private:
  std::function<void()> finish_;
  bool open_ = false;
};

}  // namespace caravan

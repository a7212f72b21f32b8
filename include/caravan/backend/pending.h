// Work that was started and must be waited on exactly once (a reduction that weight products hide).
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "caravan/core/error.h"

namespace caravan {

/// Hears when somebody waits on work that it has numbered, and when that is over. Outlives the work.
class WaitObserver {
 public:
  WaitObserver() = default;
  virtual ~WaitObserver() = default;
  WaitObserver(const WaitObserver&) = delete;
  WaitObserver& operator=(const WaitObserver&) = delete;
  WaitObserver(WaitObserver&&) = delete;
  WaitObserver& operator=(WaitObserver&&) = delete;

  virtual void wait_begins(std::uint64_t number) = 0;
  /// Not when the wait failed.
  virtual void wait_ends(std::uint64_t number) = 0;
};

class Pending {
 public:
  /// Nothing to wait for.
  Pending() = default;
  /// `finish` completes the work; it is called once, by wait(), and what it holds is released with it.
  explicit Pending(std::function<void()> finish) : finish_(std::move(finish)), open_(true) {}
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  Pending(Pending&& other) noexcept
      : finish_(std::move(other.finish_)),
        open_(std::exchange(other.open_, false)),
        observer_(other.observer_),
        number_(other.number_) {}
  Pending& operator=(Pending&& other) noexcept {
    std::swap(finish_, other.finish_);
    std::swap(open_, other.open_);
    std::swap(observer_, other.observer_);
    std::swap(number_, other.number_);
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
  /// From now on `observer` hears of the wait, under `number`.
  void observe(WaitObserver& observer, std::uint64_t number) {
    observer_ = &observer;
    number_ = number;
  }
  void wait() {
    if (open_) {
      open_ = false;
      const std::function<void()> finish = std::exchange(finish_, nullptr);
      if (observer_ != nullptr) {
        observer_->wait_begins(number_);
      }
      finish();
      if (observer_ != nullptr) {
        observer_->wait_ends(number_);
      }
    }
  }

 private:
  std::function<void()> finish_;
  bool open_ = false;
  WaitObserver* observer_ = nullptr;
  std::uint64_t number_ = 0;
};

}  // namespace caravan

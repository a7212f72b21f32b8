// A queue of limited length between one producing and one consuming thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

namespace caravan {

/// The producer calls push() until it returns false, then finish() or fail(). The consumer calls pop(), and
/// close() when it wants no more; after close() it joins the producer.
template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(std::size_t capacity) : capacity_(capacity) {}

  /// Waits for room. False: the consumer has closed the queue, `item` is dropped.
  bool push(T item) {
    std::unique_lock lock(mutex_);
    has_room_.wait(lock, [this] { return is_closed_ || items_.size() < capacity_; });
    if (is_closed_) {
      return false;
    }
    items_.push_back(std::move(item));
    has_item_.notify_one();
    return true;
  }
  /// No more items will come.
  void finish() {
    const std::lock_guard lock(mutex_);
    is_finished_ = true;
    has_item_.notify_one();
  }
  /// No more items will come, because of `problem`.
  void fail(std::exception_ptr problem) {
    const std::lock_guard lock(mutex_);
    problem_ = std::move(problem);
    is_finished_ = true;
    has_item_.notify_one();
  }

  /// Waits for an item. Nothing: the producer has finished. Rethrows what fail() was given, after the items
  /// pushed before it, and at each later call.
  std::optional<T> pop() {
    std::unique_lock lock(mutex_);
    has_item_.wait(lock, [this] { return is_finished_ || !items_.empty(); });
    if (!items_.empty()) {
      std::optional<T> item(std::move(items_.front()));
      items_.pop_front();
      has_room_.notify_one();
      return item;
    }
    if (problem_) {
      std::rethrow_exception(problem_);
    }
    return std::nullopt;
  }
  /// Releases a producer that waits in push().
  void close() {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    has_room_.notify_one();
  }
  /// True after finish(), not after fail(): items may be left, no new ones will come.
  bool has_finished() {
    const std::lock_guard lock(mutex_);
    return is_finished_ && !problem_;
  }
  bool is_closed() {
    const std::lock_guard lock(mutex_);
    return is_closed_;
  }

 private:
  std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable has_item_;
  std::condition_variable has_room_;
  std::deque<T> items_;
  std::exception_ptr problem_;
  bool is_finished_ = false;
  bool is_closed_ = false;
};

}  // namespace caravan

#include "background_writer.h"

#include <cstdlib>
#include <new>
#include <utility>

namespace caravan {

void BackgroundWriter::FreeAligned::operator()(std::byte* memory) const {
  std::free(memory);
}

BackgroundWriter::~BackgroundWriter() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
    queue_.clear();
    changed_.notify_all();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

std::span<std::byte> BackgroundWriter::block() {
  if (!current_) {
    std::unique_lock lock(mutex_);
    if (free_.empty() && made_ < kBlocks) {
      current_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kBlockBytes)));
      if (!current_) {
        throw std::bad_alloc();
      }
      ++made_;
    } else {
      changed_.wait(lock, [this] { return problem_ || !free_.empty(); });
      rethrow_problem();
      current_ = std::move(free_.front());
      free_.pop_front();
    }
  }
  return {current_.get(), kBlockBytes};
}

void BackgroundWriter::submit(std::int64_t offset, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  rethrow_problem();
  queue_.push_back({std::move(current_), offset, bytes});
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { work(); });
  }
  changed_.notify_all();
}

void BackgroundWriter::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return problem_ || (queue_.empty() && !is_writing_); });
  rethrow_problem();
}

void BackgroundWriter::rethrow_problem() const {
  if (problem_) {
    std::rethrow_exception(problem_);
  }
}

void BackgroundWriter::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return is_ending_ || !queue_.empty(); });
    if (queue_.empty() || is_ending_) {
      return;
    }
    Item item = std::move(queue_.front());
    queue_.pop_front();
    is_writing_ = true;
    lock.unlock();
    std::exception_ptr problem;
    try {
      write_(item.offset, {item.memory.get(), item.bytes});
    } catch (...) {
      problem = std::current_exception();
    }
    lock.lock();
    is_writing_ = false;
    free_.push_back(std::move(item.memory));
    problem_ = problem;
    changed_.notify_all();
    if (problem) {
      return;
    }
  }
}

}  // namespace caravan

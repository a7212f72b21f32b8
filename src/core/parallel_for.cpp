#include "caravan/core/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "caravan/core/error.h"

namespace caravan {
namespace {

struct Task {
  const RangeBody* body = nullptr;
  std::int64_t count = 0;
  std::int64_t chunk = 0;
  std::atomic<std::int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;  // the first one any thread met

  void work() {
    try {
      for (;;) {
        const std::int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
        if (begin >= count) {
          return;
        }
        (*body)(begin, std::min(begin + chunk, count));
      }
    } catch (...) {
      next.store(count);  // the others stop after their present range
      const std::lock_guard lock(error_mutex);
      if (!error) {
        error = std::current_exception();
      }
    }
  }
};

thread_local int index_of_this_thread = 0;

/// Looks at `is_ready` for as long as a sleeping thread takes to wake, or a little longer: the ops of a step
/// follow each other within microseconds, and each would else pay for waking. Long enough to bridge them,
/// too short to matter to other programs on the same cores.
template <class Ready>
bool spin_until(const Ready& is_ready) {
  constexpr auto kPatience = std::chrono::microseconds(50);
  constexpr int kLooksPerTime = 32;
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int look = 0; look < kLooksPerTime; ++look) {
      if (is_ready()) {
        return true;
      }
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

class Pool {
 public:
  explicit Pool(int workers) {
    for (int i = 0; i < workers; ++i) {
      threads_.emplace_back([this, i] {
        index_of_this_thread = i + 1;
        loop();
      });
    }
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  Pool(Pool&&) = delete;
  Pool& operator=(Pool&&) = delete;

  void run(Task& task) {
    {
      const std::lock_guard lock(mutex_);
      task_ = &task;
      running_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    task.work();
    spin_until([this] { return running_ == 0; });
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    task_ = nullptr;
    if (task.error) {
      std::rethrow_exception(task.error);
    }
  }

 private:
  void loop() {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      lock.unlock();
      spin_until([&] { return stop_ || generation_ != seen; });
      lock.lock();
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) {
        return;
      }
      seen = generation_;
      Task& task = *task_;
      lock.unlock();
      task.work();
      lock.lock();
      if (--running_ == 0) {
        done_.notify_one();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> threads_;
  Task* task_ = nullptr;
  // Written under the mutex; atomic because spinning threads look at them without it.
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> stop_{false};
};

struct Threads {
  int count = 1;
  std::unique_ptr<Pool> pool;
};

Threads& threads() {
  static Threads instance;
  return instance;
}

}  // namespace

void set_thread_count(int count) {
  CARAVAN_CHECK(count >= 1, "thread count {}", count);
  if (count != threads().count) {
    threads().pool.reset();
    threads().pool = count > 1 ? std::make_unique<Pool>(count - 1) : nullptr;
    threads().count = count;
  }
}

int thread_count() {
  return threads().count;
}

int thread_index() {
  return index_of_this_thread;
}

void parallel_for(std::int64_t count, std::int64_t grain, RangeBody body) {
  if (count <= 0) {
    return;
  }
  if (threads().count == 1 || count <= grain) {
    body(0, count);
    return;
  }
  // Four chunks per thread even out uneven rows (causal attention) without a queue.
  const std::int64_t pieces = static_cast<std::int64_t>(threads().count) * 4;
  Task task;
  task.body = &body;
  task.count = count;
  task.chunk = std::max(grain, (count / pieces + grain - 1) / grain * grain);
  threads().pool->run(task);
}

}  // namespace caravan

#include "tests/support/threaded_device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "caravan/core/error.h"

namespace caravan::test {
namespace {

class Flag final : public StreamMark {
 public:
  bool is_done() const override {
    const std::lock_guard lock(mutex_);
    return is_done_;
  }
  void wait() const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return is_done_; });
  }
  void set() {
    const std::lock_guard lock(mutex_);
    is_done_ = true;
    changed_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool is_done_ = false;
};

}  // namespace

class ThreadedDevice::Worker {
 public:
  Worker(int most_delay_us, unsigned seed)
      : most_delay_us_(most_delay_us), state_(seed), thread_([this] { run(); }) {}
  ~Worker() {
    enqueue(nullptr);
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  Worker(Worker&&) = delete;
  Worker& operator=(Worker&&) = delete;

  void enqueue(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    changed_.notify_one();
  }

 private:
  void run() {
    for (;;) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !work_.empty(); });
        work = std::move(work_.front());
        work_.pop_front();
      }
      if (!work) {
        return;
      }
      if (most_delay_us_ > 0) {
        state_ = state_ * 1664525U + 1013904223U;
        std::this_thread::sleep_for(
            std::chrono::microseconds((state_ >> 16U) % static_cast<unsigned>(most_delay_us_ + 1)));
      }
      work();
    }
  }

  int most_delay_us_;
  unsigned state_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  std::thread thread_;
};

ThreadedDevice::ThreadedDevice(int most_delay_us, int index) : most_delay_us_(most_delay_us), index_(index) {
  for (int id = 0; id <= static_cast<int>(StreamId::kCopy); ++id) {
    make_stream(static_cast<StreamId>(id));
  }
}

ThreadedDevice::~ThreadedDevice() = default;

Stream ThreadedDevice::stream(StreamId id) {
  return {id, workers_.at(static_cast<std::size_t>(id)).get()};
}

Stream ThreadedDevice::make_stream(StreamId id) {
  workers_.push_back(std::make_unique<Worker>(most_delay_us_, static_cast<unsigned>(workers_.size()) + 7));
  return {id, workers_.back().get()};
}

void ThreadedDevice::enqueue(const Stream& stream, std::function<void()> work) {
  static_cast<Worker*>(stream.handle)->enqueue(std::move(work));
}

Mark ThreadedDevice::record(const Stream& stream) {
  auto flag = std::make_shared<Flag>();
  enqueue(stream, [flag] { flag->set(); });
  return flag;
}

void ThreadedDevice::wait(const Stream& stream, const Mark& mark) {
  enqueue(stream, [mark] { mark->wait(); });
}

void ThreadedDevice::copy(void* to, const void* from, std::int64_t bytes, const Stream& stream) {
  CARAVAN_CHECK(bytes >= 0, "copy of {} bytes", bytes);
  ++copies_;
  enqueue(stream, [=] {
    if (bytes > 0) {  // of nothing, the addresses may be null
      std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }
  });
}

Buffer ThreadedDevice::allocate_pinned(std::int64_t bytes) {
  pinned_bytes_ += bytes;
  return allocate_host(bytes);
}

Buffer ThreadedDevice::allocate(std::int64_t bytes) {
  auto* memory = static_cast<std::byte*>(std::malloc(static_cast<std::size_t>(bytes) + 1));
  std::memset(memory, 0xff, static_cast<std::size_t>(bytes));
  return {memory, bytes, device(), [](void* data) { std::free(data); }};
}

void ThreadedDevice::synchronize(StreamId id) {
  record(stream(id))->wait();
}

void ThreadedDevice::finish() {
  for (const auto& worker : workers_) {
    record({StreamId::kCompute, worker.get()})->wait();
  }
}

}  // namespace caravan::test

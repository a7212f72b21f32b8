#include "host_runner/device_queues.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "caravan/core/error.h"
#include "host_runner/host_runner.h"

namespace caravan::host_runner {

std::string schedule_name(const QueueSchedule& schedule) {
  switch (schedule.kind) {
    case QueueSchedule::Kind::kAtOnce:
      return "at_once";
    case QueueSchedule::Kind::kLate:
      return "late";
    default:
      return std::to_string(schedule.seed);
  }
}

QueueSchedule parse_queue_schedule(const std::string& text) {
  if (text == "at_once" || text == "late") {
    return {text == "late" ? QueueSchedule::Kind::kLate : QueueSchedule::Kind::kAtOnce};
  }
  char* end = nullptr;
  const std::uint64_t seed = std::strtoull(text.c_str(), &end, 10);
  CARAVAN_CHECK(
      end != text.c_str() && *end == '\0',
      "CARAVAN_EMULATED_QUEUES is '{}'; queues run at_once, late, or by chance from a seed (a number)", text);
  return {QueueSchedule::Kind::kByChance, seed};
}

/// A place in a queue: the end of what it had.
class DeviceQueues::Place final : public StreamMark {
 public:
  Place(DeviceQueues& queues, std::shared_ptr<Queue> queue, std::uint64_t end)
      : queues_(queues), queue_(std::move(queue)), end_(end) {}

  bool has_come() const { return queue_->done >= end_; }
  /// Asking runs nothing, but who asks again and again may mean to do so until it is done. Other threads than
  /// the device's own only look: they may not make work run that its thread has not waited for.
  bool is_done() const override {
    constexpr int kPatience = 16;
    if (!has_come() && std::this_thread::get_id() == queues_.owner_) {
      const std::lock_guard lock(queues_.mutex_);
      queues_.let_some_run();
      if (++asked_ > kPatience) {
        queues_.run_until(*queue_, end_);
      }
    }
    return has_come();
  }
  void wait() const override {
    const std::lock_guard lock(queues_.mutex_);
    queues_.run_until(*queue_, end_);
    queues_.throw_error();
  }

  Queue& queue() const { return *queue_; }
  std::uint64_t end() const { return end_; }

 private:
  DeviceQueues& queues_;
  std::shared_ptr<Queue> queue_;
  std::uint64_t end_;
  mutable int asked_ = 0;
};

/// A place within a recording, which nobody can come to or wait for but a queue of it.
class DeviceQueues::RecordedPlace final : public StreamMark {
 public:
  explicit RecordedPlace(std::size_t number) : number_(number) {}
  bool is_done() const override { fail<InternalError>("the host asks for a mark of a recording"); }
  void wait() const override { fail<InternalError>("the host waits for a mark of a recording"); }
  std::size_t number() const { return number_; }

 private:
  std::size_t number_;
};

class DeviceQueues::OpenGate {
 public:
  explicit OpenGate(Gate gate) : gate_(gate) { tell(true); }
  ~OpenGate() { tell(false); }
  OpenGate(const OpenGate&) = delete;
  OpenGate& operator=(const OpenGate&) = delete;
  OpenGate(OpenGate&&) = delete;
  OpenGate& operator=(OpenGate&&) = delete;

 private:
  void tell(bool begins) const {
    if (gate_ != nullptr) {
      gate_(begins);
    }
  }
  Gate gate_;
};

DeviceQueues& DeviceQueues::instance() {
  static DeviceQueues& queues = *new DeviceQueues;
  return queues;
}

DeviceQueues::DeviceQueues() {
  const char* named = std::getenv("CARAVAN_EMULATED_QUEUES");
  set_schedule(named != nullptr ? parse_queue_schedule(named) : QueueSchedule());
}

void DeviceQueues::set_schedule(const QueueSchedule& schedule) {
  finish();
  schedule_ = schedule;
  random_state_ = schedule.seed * 0x9e3779b97f4a7c15U + 1;
}

CUstream_st* DeviceQueues::make() {
  const std::lock_guard lock(mutex_);
  queues_.push_back(std::make_shared<Queue>());
  return reinterpret_cast<CUstream_st*>(queues_.back().get());
}

void DeviceQueues::drop(CUstream_st* handle) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Queue> queue = find(handle);
  queue->items.clear();
  queue->done = queue->enqueued;  // nobody shall wait for it
  if (joined(queue)) {
    recording_.reset();
    is_recording_ = false;
  }
  std::erase(queues_, queue);
}

std::shared_ptr<DeviceQueues::Queue> DeviceQueues::find(CUstream_st* handle) const {
  for (const std::shared_ptr<Queue>& queue : queues_) {
    if (reinterpret_cast<CUstream_st*>(queue.get()) == handle) {
      return queue;
    }
  }
  fail<InternalError>("work for a queue that the emulated device does not have");
}

void DeviceQueues::push(Queue& queue, Item item) {
  queue.items.push_back(std::move(item));
  ++queue.enqueued;
  if (schedule_.kind == QueueSchedule::Kind::kAtOnce) {
    run_until(queue, queue.enqueued);
    throw_error();
  } else {
    let_some_run();
  }
}

void DeviceQueues::enqueue(CUstream_st* handle, Work work) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Queue> queue = find(handle);
  if (const auto number = joined(queue)) {
    recording_->steps.push_back({*number, std::move(work), {}, {}});
  } else {
    push(*queue, {std::move(work), nullptr});
  }
}

Mark DeviceQueues::record(CUstream_st* handle) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Queue> queue = find(handle);
  if (const auto number = joined(queue)) {
    recording_->steps.push_back({*number, nullptr, recording_->marks, {}});
    return std::make_shared<const RecordedPlace>(recording_->marks++);
  }
  auto place = std::make_shared<const Place>(*this, queue, queue->enqueued);
  let_some_run();
  return place;
}

void DeviceQueues::wait(CUstream_st* handle, const Mark& mark) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Queue> queue = find(handle);
  if (joined(queue) || std::dynamic_pointer_cast<const RecordedPlace>(mark) != nullptr) {
    record_wait(queue, mark);
    return;
  }
  auto place = std::dynamic_pointer_cast<const Place>(mark);
  CARAVAN_CHECK(place != nullptr, "a queue waits for a mark of another device");
  push(*queue, {nullptr, std::move(place)});
}

void DeviceQueues::synchronize(CUstream_st* handle) {
  const std::lock_guard lock(mutex_);
  const std::shared_ptr<Queue> queue = find(handle);
  run_until(*queue, queue->enqueued);
  throw_error();
}

void DeviceQueues::finish() noexcept {
  const std::lock_guard lock(mutex_);
  for (const std::shared_ptr<Queue>& queue : std::vector(queues_)) {
    run_until(*queue, queue->enqueued);
  }
}

std::optional<std::size_t> DeviceQueues::joined(const std::shared_ptr<Queue>& queue) const {
  if (recording_) {
    const auto found = std::find(recording_->queues.begin(), recording_->queues.end(), queue);
    if (found != recording_->queues.end()) {
      return static_cast<std::size_t>(found - recording_->queues.begin());
    }
  }
  return std::nullopt;
}

void DeviceQueues::record_wait(const std::shared_ptr<Queue>& queue, const Mark& mark) {
  const auto place = std::dynamic_pointer_cast<const RecordedPlace>(mark);
  CARAVAN_CHECK(place != nullptr, "a queue of a recording waits for a mark from outside of it");
  CARAVAN_CHECK(recording_ != nullptr && place->number() < recording_->marks,
                "a queue waits for a mark of a recording that is over");
  if (!joined(queue)) {
    recording_->queues.push_back(queue);
  }
  recording_->steps.push_back({*joined(queue), nullptr, {}, place->number()});
}

void DeviceQueues::begin_recording(CUstream_st* handle) {
  const std::lock_guard lock(mutex_);
  CARAVAN_CHECK(recording_ == nullptr, "a recording begins within another one");
  recording_ = std::make_unique<Recording>();
  recording_->queues.push_back(find(handle));
  is_recording_ = true;
}

/// From the end backwards: a queue is waited for up to the last of its marks that a queue waits for which is
/// itself waited for.
void DeviceQueues::check_joined_again(const Recording& recording) {
  const std::vector<RecordedStep>& steps = recording.steps;
  std::vector<bool> is_awaited(recording.marks);
  std::vector<bool> has_end(recording.queues.size());
  has_end[0] = true;
  for (std::size_t left = steps.size(); left > 0; --left) {
    const RecordedStep& step = steps[left - 1];
    has_end[step.queue] = has_end[step.queue] || (step.makes && is_awaited[*step.makes]);
    CARAVAN_CHECK(has_end[step.queue] || step.makes,
                  "a recording ends that does not wait for what queue {} of it was given last", step.queue);
    if (step.waits_for) {
      is_awaited[*step.waits_for] = true;
    }
  }
}

std::vector<DeviceQueues::RecordedStep> DeviceQueues::end_recording(CUstream_st* handle) {
  const std::lock_guard lock(mutex_);
  CARAVAN_CHECK(recording_ != nullptr && recording_->queues.front() == find(handle),
                "a recording ends that has not begun");
  const std::unique_ptr<Recording> ended = std::move(recording_);
  is_recording_ = false;
  check_joined_again(*ended);
  return std::move(ended->steps);
}

bool DeviceQueues::is_recording(CUstream_st* handle) const {
  const std::lock_guard lock(mutex_);
  return joined(find(handle)).has_value();
}

/// Queues that wait for each other's places do so in a chain and not in a circle: a place is there before
/// anybody can wait for it.
void DeviceQueues::run_until(Queue& queue, std::uint64_t end) {
  if (queue.done >= end) {
    return;
  }
  const OpenGate open(gate_);
  std::vector<std::pair<Queue*, std::uint64_t>> goals{{&queue, end}};
  while (!goals.empty()) {
    const auto [at, goal] = goals.back();
    if (at->done >= goal || at->items.empty()) {  // none left: the last one runs, and has freed memory
      goals.pop_back();
    } else if (const Place* after = at->items.front().after.get(); after != nullptr && !after->has_come()) {
      goals.emplace_back(&after->queue(), after->end());
    } else {
      run_first(*at);
    }
  }
}

void DeviceQueues::run_first(Queue& queue) {
  const Item item = std::move(queue.items.front());
  queue.items.pop_front();
  try {
    if (item.work) {
      item.work();
    }
    queue.done = queue.enqueued - queue.items.size();
  } catch (...) {
    give_up(std::current_exception());
  }
}

void DeviceQueues::let_some_run() {
  if (schedule_.kind != QueueSchedule::Kind::kByChance) {
    return;
  }
  while (random() % 2 == 0) {
    std::vector<Queue*> ready;
    for (const std::shared_ptr<Queue>& queue : queues_) {
      if (!queue->items.empty() &&
          (queue->items.front().after == nullptr || queue->items.front().after->has_come())) {
        ready.push_back(queue.get());
      }
    }
    if (ready.empty()) {
      return;
    }
    const OpenGate open(gate_);
    run_first(*ready[random() % ready.size()]);
  }
}

void DeviceQueues::give_up(std::exception_ptr error) {
  if (error_ == nullptr) {
    error_ = std::move(error);
  }
  for (const std::shared_ptr<Queue>& queue : queues_) {
    queue->items.clear();
    queue->done = queue->enqueued;
  }
}

void DeviceQueues::throw_error() {
  if (error_ != nullptr) {
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

/// xorshift64*
std::uint64_t DeviceQueues::random() {
  random_state_ ^= random_state_ >> 12U;
  random_state_ ^= random_state_ << 25U;
  random_state_ ^= random_state_ >> 27U;
  return (random_state_ * 0x2545f4914f6cdd1dU) >> 33U;
}

/// Kernels of a test without a device have no queue to run on.
void enqueue(CUstream_st* stream, std::function<void()> work) {
  if (stream == nullptr) {
    work();
  } else {
    DeviceQueues::instance().enqueue(stream, std::move(work));
  }
}

}  // namespace caravan::host_runner

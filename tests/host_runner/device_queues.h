// The queues of the emulated device. What is enqueued on one runs in its order; between two of them there is
// no order but what marks make, and a schedule chooses among all orders that are left. The host sees work
// done only where it has waited for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "caravan/backend/device_streams.h"

struct CUstream_st;

namespace caravan::host_runner {

using Work = std::function<void()>;

/// When work runs that nobody has waited for.
struct QueueSchedule {
  enum class Kind : std::uint8_t {
    kAtOnce,    // when it is enqueued, with all it has to wait for: queues are as one
    kLate,      // never: only what the host waits for runs, and what has to come before that
    kByChance,  // at any call, on any queue, by a sequence of the seed
  };
  Kind kind = Kind::kLate;
  std::uint64_t seed = 0;  // of kByChance
};
/// "at_once", "late", or the seed.
std::string schedule_name(const QueueSchedule& schedule);
/// The reverse of schedule_name.
QueueSchedule parse_queue_schedule(const std::string& text);

/// The queues of this process's devices. A handle is what kernels are launched with. Any thread may call.
class DeviceQueues {
 public:
  /// Told before work runs (true) and after it (false): memory is open in between.
  using Gate = void (*)(bool begins);

  /// Never destroyed: devices in static objects go after other static objects. Begins with the schedule that
  /// CARAVAN_EMULATED_QUEUES names, kLate where it names none.
  static DeviceQueues& instance();

  const QueueSchedule& schedule() const { return schedule_; }
  /// For what is enqueued from here on; runs what is there.
  void set_schedule(const QueueSchedule& schedule);
  void set_gate(Gate gate) { gate_ = gate; }

  CUstream_st* make();
  /// With what has not run.
  void drop(CUstream_st* handle);

  void enqueue(CUstream_st* handle, Work work);
  Mark record(CUstream_st* handle);
  void wait(CUstream_st* handle, const Mark& mark);
  /// Runs what the queue has. Throws what work has thrown since the host last waited; a device on which work
  /// has failed forgets what it was given.
  void synchronize(CUstream_st* handle);
  /// Runs all queues to their ends; errors are left for synchronize().
  void finish() noexcept;

  /// One step of a recording, in the order of the calls: work, or a mark that is made or waited for.
  struct RecordedStep {
    std::size_t queue = 0;  // 0: the one that began; others in the order in which they joined
    Work work;
    std::optional<std::size_t> makes, waits_for;  // marks by their number
  };
  /// What is enqueued in between is kept and not run. As in a CUDA graph's capture, a queue joins when it
  /// waits for a mark that was made within the recording, no queue of it waits for any other mark, and all of
  /// them have to be waited for, directly or not, by the one that began before it ends.
  void begin_recording(CUstream_st* handle);
  std::vector<RecordedStep> end_recording(CUstream_st* handle);
  /// This queue, or any.
  bool is_recording(CUstream_st* handle) const;
  bool is_recording() const { return is_recording_; }

 private:
  struct Queue;
  class Place;
  class RecordedPlace;
  struct Item {
    Work work;                           // or
    std::shared_ptr<const Place> after;  // what the queue waits for
  };
  struct Queue {
    std::deque<Item> items;
    std::uint64_t enqueued = 0;  // items, ever
    std::atomic<std::uint64_t> done{0};
  };
  struct Recording {
    std::vector<std::shared_ptr<Queue>> queues;  // that have joined
    std::vector<RecordedStep> steps;
    std::size_t marks = 0;
  };
  class OpenGate;

  DeviceQueues();
  std::shared_ptr<Queue> find(CUstream_st* handle) const;
  std::optional<std::size_t> joined(const std::shared_ptr<Queue>& queue) const;
  void record_wait(const std::shared_ptr<Queue>& queue, const Mark& mark);
  static void check_joined_again(const Recording& recording);
  void push(Queue& queue, Item item);
  void run_until(Queue& queue, std::uint64_t end);
  void run_first(Queue& queue);
  void let_some_run();
  void give_up(std::exception_ptr error);
  void throw_error();
  std::uint64_t random();

  mutable std::recursive_mutex mutex_;  // work that runs may free memory, which runs work
  std::vector<std::shared_ptr<Queue>> queues_;
  QueueSchedule schedule_;
  std::uint64_t random_state_ = 0;
  Gate gate_ = nullptr;
  std::unique_ptr<Recording> recording_;   // null between recordings
  std::atomic<bool> is_recording_{false};  // recording_ is there
  std::exception_ptr error_;
  std::thread::id owner_ = std::this_thread::get_id();
};

}  // namespace caravan::host_runner

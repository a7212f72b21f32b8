// A device whose streams are threads: copies and exchanges on different streams really run beside each other
// and late, so that a missing wait between two streams shows as a wrong result. Its memory is host memory,
// named a device's.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "caravan/backend/device_streams.h"

namespace caravan::test {

class ThreadedDevice final : public DeviceStreams {
 public:
  /// Before every piece of work a stream sleeps up to `most_delay_us` microseconds, by a fixed sequence.
  explicit ThreadedDevice(int most_delay_us = 0, int index = 0);
  ~ThreadedDevice() override;

  Device device() const override { return {DeviceKind::kCuda, index_}; }
  std::string bus_id() const override { return "threads"; }
  Buffer allocate_pinned(std::int64_t bytes) override;
  Stream stream(StreamId id) override;
  Stream make_stream(StreamId id) override;
  Mark record(const Stream& stream) override;
  void wait(const Stream& stream, const Mark& mark) override;
  void copy(void* to, const void* from, std::int64_t bytes, const Stream& stream) override;

  /// Memory of the device, full of 0xff.
  Buffer allocate(std::int64_t bytes);
  /// Runs `work` on the stream's thread, in its order.
  static void enqueue(const Stream& stream, std::function<void()> work);
  void synchronize(StreamId id = StreamId::kCompute);
  /// Until all streams have run what they have.
  void finish();
  int streams() const { return static_cast<int>(workers_.size()); }
  /// Copies enqueued so far.
  std::int64_t copies() const { return copies_; }
  std::int64_t pinned_bytes() const { return pinned_bytes_; }

 private:
  class Worker;

  int most_delay_us_;
  int index_;
  std::int64_t pinned_bytes_ = 0;
  std::int64_t copies_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace caravan::test

// What a group of ranks asks of a device: its streams, points in them, and copies enqueued on them. Nobody
// waits on the host but in StreamMark::wait().
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "caravan/backend/buffer.h"
#include "caravan/backend/stream.h"

namespace caravan {

/// The work that a stream had when the mark was made. Both functions may be called from any thread.
class StreamMark {
 public:
  StreamMark() = default;
  virtual ~StreamMark() = default;
  StreamMark(const StreamMark&) = delete;
  StreamMark& operator=(const StreamMark&) = delete;
  StreamMark(StreamMark&&) = delete;
  StreamMark& operator=(StreamMark&&) = delete;

  virtual bool is_done() const = 0;
  /// Blocks this thread until it is done.
  virtual void wait() const = 0;
};
using Mark = std::shared_ptr<const StreamMark>;

/// One device. Errors are DeviceErrors. Outlives its streams, marks and buffers. One thread at a time, but
/// for marks.
class DeviceStreams {
 public:
  DeviceStreams() = default;
  virtual ~DeviceStreams() = default;
  DeviceStreams(const DeviceStreams&) = delete;
  DeviceStreams& operator=(const DeviceStreams&) = delete;
  DeviceStreams(DeviceStreams&&) = delete;
  DeviceStreams& operator=(DeviceStreams&&) = delete;

  virtual Device device() const = 0;
  /// What tells the device from the others of its machine, whatever this process calls them: a GPU's bus id.
  virtual std::string bus_id() const = 0;
  /// Host memory that the device copies from and to without a detour.
  virtual Buffer allocate_pinned(std::int64_t bytes) = 0;
  /// The program's stream of this id; ops run on kCompute.
  virtual Stream stream(StreamId id) = 0;
  /// One more stream, named after `id`, as long as this object lives.
  virtual Stream make_stream(StreamId id) = 0;
  virtual Mark record(const Stream& stream) = 0;
  /// What is enqueued on `stream` from now on waits for `mark`.
  virtual void wait(const Stream& stream, const Mark& mark) = 0;
  /// Whether what is enqueued on kCompute now is recorded (Backend::begin_recording), and with it what other
  /// streams are given after marks of it; kCompute has to wait for all of that before the recording ends.
  virtual bool is_recording() const { return false; }
  /// Host and pinned memory, and memory of this device, in any combination; the two do not overlap.
  virtual void copy(void* to, const void* from, std::int64_t bytes, const Stream& stream) = 0;
};

}  // namespace caravan

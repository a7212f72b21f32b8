// Streams of the emulated device: its queues.
#include <vector>

#include "host_runner/device_queues.h"
#include "host_runner/emulated_environment.h"
#include "kernels/cuda/device_streams.h"

namespace caravan::cuda {
namespace {

using host_runner::DeviceQueues;

StreamHandle handle_of(const Stream& stream) {
  return static_cast<StreamHandle>(stream.handle);
}

class EmulatedStreams final : public DeviceStreams {
 public:
  explicit EmulatedStreams(DeviceRuntime& runtime) : runtime_(runtime) {}
  ~EmulatedStreams() override {
    for (const StreamHandle stream : made_) {
      DeviceQueues::instance().drop(stream);
    }
  }
  EmulatedStreams(const EmulatedStreams&) = delete;
  EmulatedStreams& operator=(const EmulatedStreams&) = delete;
  EmulatedStreams(EmulatedStreams&&) = delete;
  EmulatedStreams& operator=(EmulatedStreams&&) = delete;

  Device device() const override { return {DeviceKind::kCuda, runtime_.facts().index}; }
  std::string bus_id() const override { return host_runner::emulated_bus_id(); }
  Buffer allocate_pinned(std::int64_t bytes) override { return runtime_.allocate_pinned(bytes); }
  Stream stream(StreamId id) override { return {id, runtime_.stream(id)}; }
  Stream make_stream(StreamId id) override {
    made_.push_back(DeviceQueues::instance().make());
    return {id, made_.back()};
  }
  Mark record(const Stream& stream) override { return DeviceQueues::instance().record(handle_of(stream)); }
  void wait(const Stream& stream, const Mark& mark) override {
    DeviceQueues::instance().wait(handle_of(stream), mark);
  }
  bool is_recording() const override {
    return DeviceQueues::instance().is_recording(runtime_.stream(StreamId::kCompute));
  }
  void copy(void* to, const void* from, std::int64_t bytes, const Stream& stream) override {
    runtime_.copy(to, from, bytes, handle_of(stream));
  }

 private:
  DeviceRuntime& runtime_;
  std::vector<StreamHandle> made_;
};

}  // namespace

std::unique_ptr<DeviceStreams> make_device_streams(DeviceRuntime& runtime) {
  return std::make_unique<EmulatedStreams>(runtime);
}

}  // namespace caravan::cuda

// Streams of the emulated device, which does everything at once: every mark is done when it is made.
#include <unistd.h>

#include "kernels/cuda/device_streams.h"

namespace caravan::cuda {
namespace {

class DoneMark final : public StreamMark {
 public:
  bool is_done() const override { return true; }
  void wait() const override {}
};

class EmulatedStreams final : public DeviceStreams {
 public:
  explicit EmulatedStreams(DeviceRuntime& runtime) : runtime_(runtime) {}
  Device device() const override { return {DeviceKind::kCuda, runtime_.facts().index}; }
  std::string bus_id() const override { return "process " + std::to_string(getpid()); }
  Buffer allocate_pinned(std::int64_t bytes) override { return runtime_.allocate_pinned(bytes); }
  Stream stream(StreamId id) override { return {id, runtime_.stream(id)}; }
  Stream make_stream(StreamId id) override { return stream(id); }
  Mark record(const Stream& /*stream*/) override { return std::make_shared<DoneMark>(); }
  void wait(const Stream& /*stream*/, const Mark& /*mark*/) override {}
  void copy(void* to, const void* from, std::int64_t bytes, const Stream& stream) override {
    runtime_.copy(to, from, bytes, static_cast<StreamHandle>(stream.handle));
  }

 private:
  DeviceRuntime& runtime_;
};

}  // namespace

std::unique_ptr<DeviceStreams> make_device_streams(DeviceRuntime& runtime) {
  return std::make_unique<EmulatedStreams>(runtime);
}

}  // namespace caravan::cuda

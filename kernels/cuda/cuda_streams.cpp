#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "caravan/core/error.h"
#include "kernels/cuda/device_streams.h"
#include "kernels/cuda/launch_status.h"

namespace caravan::cuda {
namespace {

void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status != cudaSuccess) {
    fail<DeviceError>("{} ({}:{}): {} ({}); {}", call, file, line, cudaGetErrorName(status),
                      cudaGetErrorString(status), remedy(status));
  }
}
#define CARAVAN_CUDA(call) check((call), #call, __FILE_NAME__, __LINE__)

/// Events between uses: making one costs more than recording it.
class EventPool {
 public:
  EventPool() = default;
  ~EventPool() {
    for (const cudaEvent_t event : unused_) {
      cudaEventDestroy(event);
    }
  }
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;
  EventPool(EventPool&&) = delete;
  EventPool& operator=(EventPool&&) = delete;

  cudaEvent_t take() {
    const std::lock_guard lock(mutex_);
    if (unused_.empty()) {
      cudaEvent_t event = nullptr;
      CARAVAN_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
      return event;
    }
    const cudaEvent_t event = unused_.back();
    unused_.pop_back();
    return event;
  }
  void give_back(cudaEvent_t event) {
    const std::lock_guard lock(mutex_);
    unused_.push_back(event);
  }

 private:
  std::mutex mutex_;
  std::vector<cudaEvent_t> unused_;
};

/// Asked from threads that have never touched the device: without a word they would open the first one.
class OnDevice {
 public:
  explicit OnDevice(int index) {
    CARAVAN_CUDA(cudaSetDevice(index));
    // A question of another thread must not spoil a graph that is being captured.
    cudaThreadExchangeStreamCaptureMode(&mode_);
  }
  ~OnDevice() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  OnDevice(OnDevice&&) = delete;
  OnDevice& operator=(OnDevice&&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

class CudaMark final : public StreamMark {
 public:
  CudaMark(std::shared_ptr<EventPool> pool, int device)
      : pool_(std::move(pool)), device_(device), event_(pool_->take()) {}
  ~CudaMark() override { pool_->give_back(event_); }
  CudaMark(const CudaMark&) = delete;
  CudaMark& operator=(const CudaMark&) = delete;
  CudaMark(CudaMark&&) = delete;
  CudaMark& operator=(CudaMark&&) = delete;

  bool is_done() const override {
    const OnDevice on(device_);
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) {
      return false;
    }
    CARAVAN_CUDA(status);
    return true;
  }
  void wait() const override {
    const OnDevice on(device_);
    CARAVAN_CUDA(cudaEventSynchronize(event_));
  }
  cudaEvent_t event() const { return event_; }

 private:
  std::shared_ptr<EventPool> pool_;
  int device_;
  cudaEvent_t event_;
};

cudaStream_t handle_of(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.handle);
}

class CudaStreams final : public DeviceStreams {
 public:
  explicit CudaStreams(DeviceRuntime& runtime) : runtime_(runtime) {}
  ~CudaStreams() override {
    for (const cudaStream_t stream : made_) {
      cudaStreamDestroy(stream);
    }
  }
  CudaStreams(const CudaStreams&) = delete;
  CudaStreams& operator=(const CudaStreams&) = delete;
  CudaStreams(CudaStreams&&) = delete;
  CudaStreams& operator=(CudaStreams&&) = delete;

  Device device() const override { return {DeviceKind::kCuda, runtime_.facts().index}; }
  std::string bus_id() const override {
    std::array<char, 32> text{};
    CARAVAN_CUDA(cudaDeviceGetPCIBusId(text.data(), static_cast<int>(text.size()), runtime_.facts().index));
    return text.data();
  }
  Buffer allocate_pinned(std::int64_t bytes) override { return runtime_.allocate_pinned(bytes); }
  Stream stream(StreamId id) override { return {id, runtime_.stream(id)}; }
  /// Before the computation where both could run: others may wait for what it carries.
  Stream make_stream(StreamId id) override {
    int least = 0;
    int greatest = 0;
    CARAVAN_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cudaStream_t stream = nullptr;
    CARAVAN_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
    made_.push_back(stream);
    return {id, stream};
  }
  Mark record(const Stream& stream) override {
    auto mark = std::make_shared<CudaMark>(pool_, runtime_.facts().index);
    CARAVAN_CUDA(cudaEventRecord(mark->event(), handle_of(stream)));
    return mark;
  }
  void wait(const Stream& stream, const Mark& mark) override {
    CARAVAN_CUDA(cudaStreamWaitEvent(handle_of(stream), static_cast<const CudaMark&>(*mark).event(), 0));
  }
  bool is_recording() const override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    CARAVAN_CUDA(cudaStreamIsCapturing(runtime_.stream(StreamId::kCompute), &status));
    return status != cudaStreamCaptureStatusNone;
  }
  void copy(void* to, const void* from, std::int64_t bytes, const Stream& stream) override {
    runtime_.copy(to, from, bytes, handle_of(stream));
  }

 private:
  DeviceRuntime& runtime_;
  std::shared_ptr<EventPool> pool_ = std::make_shared<EventPool>();
  std::vector<cudaStream_t> made_;
};

}  // namespace

std::unique_ptr<DeviceStreams> make_device_streams(DeviceRuntime& runtime) {
  return std::make_unique<CudaStreams>(runtime);
}

}  // namespace caravan::cuda

// DeviceRuntime over the emulated device's queues and memory.
#pragma once

#include <array>

#include "kernels/cuda/device_runtime.h"

namespace caravan::host_runner {

/// Copies mean what CUDA's do. What leaves pageable host memory is staged before the call returns, what goes
/// there, or from host memory to host memory, is waited for; page-locked memory is read and written when the
/// copy's turn in its queue has come, until which the host may see and spoil it.
class EmulatedRuntime final : public cuda::DeviceRuntime {
 public:
  explicit EmulatedRuntime(int index);
  ~EmulatedRuntime() override;
  EmulatedRuntime(const EmulatedRuntime&) = delete;
  EmulatedRuntime& operator=(const EmulatedRuntime&) = delete;
  EmulatedRuntime(EmulatedRuntime&&) = delete;
  EmulatedRuntime& operator=(EmulatedRuntime&&) = delete;

  const cuda::DeviceFacts& facts() const override { return facts_; }
  std::int64_t free_bytes() const override;
  Buffer allocate(std::int64_t bytes) override;
  Buffer allocate_pinned(std::int64_t bytes) override;
  cuda::StreamHandle stream(StreamId id) override { return streams_.at(static_cast<std::size_t>(id)); }
  void synchronize(cuda::StreamHandle stream) override;
  void copy(void* to, const void* from, std::int64_t bytes, cuda::StreamHandle stream) override;
  void zero(void* data, std::int64_t bytes, cuda::StreamHandle stream) override;
  void matmul(const cuda::Product& product, cuda::StreamHandle stream) override;
  void call_library(const std::function<void()>& call, cuda::StreamHandle stream) override;
  /// Not with CARAVAN_SYNC_KERNELS=1, as a GPU's.
  bool can_record() const override;
  void begin_recording(cuda::StreamHandle stream) override;
  std::unique_ptr<Recording> end_recording(cuda::StreamHandle stream) override;

 private:
  cuda::DeviceFacts facts_;
  std::array<cuda::StreamHandle, kStreamCount> streams_{};
};

}  // namespace caravan::host_runner

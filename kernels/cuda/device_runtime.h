// What the CUDA backend asks of a device beside kernels: memory, queues, copies, large products. Two
// implementations: CUDA's own (cuda_runtime.cpp) and one in host memory for the tests
// (tests/host_runner/emulated_device.cpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "caravan/backend/buffer.h"
#include "caravan/backend/recording.h"
#include "caravan/backend/stream.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {

/// c (+)= op(a) · op(b), row-major, where op transposes or not. a and b have one dtype, float32 or 16-bit;
/// c has theirs or float32; sums are in float32.
struct Product {
  enum class Form : std::uint8_t { kNt, kNn, kTn };  // a·bᵀ [M,K][N,K]; a·b [M,K][K,N]; aᵀ·b [K,M][K,N]
  Form form = Form::kNt;
  TensorView a, b, c;
  bool add = false;  // onto what c holds
};

/// What the plan and reports say of the device.
struct DeviceFacts {
  std::string name;  // "NVIDIA H200"
  int index = 0;
  int compute_capability = 0;  // 90 for 9.0
  int multiprocessors = 0;
  std::int64_t shared_bytes = 0;  // that a block may have
  std::int64_t memory_bytes = 0;
  std::int64_t free_bytes = 0;       // when the runtime was opened
  std::int64_t workspace_bytes = 0;  // that the first product takes, for good
  std::string memory_id = {};  // whose memory it is, on this machine: instances of a divided GPU (MIG) have
                               // one each, though they have its bus id
};

/// One device, used by one thread. Errors are DeviceErrors with the call, CUDA's name and words for it, and a
/// hint. Buffers and handles live no longer than the runtime.
class DeviceRuntime {
 public:
  DeviceRuntime() = default;
  virtual ~DeviceRuntime() = default;
  DeviceRuntime(const DeviceRuntime&) = delete;
  DeviceRuntime& operator=(const DeviceRuntime&) = delete;
  DeviceRuntime(DeviceRuntime&&) = delete;
  DeviceRuntime& operator=(DeviceRuntime&&) = delete;

  virtual const DeviceFacts& facts() const = 0;
  /// Of the device's memory, now.
  virtual std::int64_t free_bytes() const = 0;

  /// Zeroed memory of the device, aligned to 256 bytes, or of the host, page-locked.
  virtual Buffer allocate(std::int64_t bytes) = 0;
  virtual Buffer allocate_pinned(std::int64_t bytes) = 0;

  /// Queues run beside each other; what is enqueued on one runs in order.
  virtual StreamHandle stream(StreamId id) = 0;
  virtual void synchronize(StreamHandle stream) = 0;

  /// Host and device memory in any combination. The host may touch its side again after synchronize().
  virtual void copy(void* to, const void* from, std::int64_t bytes, StreamHandle stream) = 0;
  virtual void zero(void* memory, std::int64_t bytes, StreamHandle stream) = 0;

  virtual void matmul(const Product& product, StreamHandle stream) = 0;

  /// Lets another library enqueue work of its own on `stream`, in `call`; a copy of `call` may be kept as
  /// long as a recording that it is part of.
  virtual void call_library(const std::function<void()>& call, StreamHandle stream) = 0;

  /// Not under --sync-kernels: a recording runs as a whole, and a fault in it has no kernel's name.
  virtual bool can_record() const = 0;
  /// What is enqueued on `stream` between the two calls is remembered and not run; nothing is allocated or
  /// waited for in between.
  virtual void begin_recording(StreamHandle stream) = 0;
  virtual std::unique_ptr<Recording> end_recording(StreamHandle stream) = 0;

  /// A named range of the host's timeline for profilers.
  virtual void range_begin(const char* /*name*/) {}
  virtual void range_end() {}
};

}  // namespace caravan::cuda

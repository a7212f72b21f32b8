// A GPU through CUDA's runtime library, linked statically; the driver is looked for when the first call is
// made.
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <array>

#include "caravan/core/error.h"
#include "kernels/cuda/launch_status.h"
#include "kernels/cuda/open_device.h"
#include "kernels/cuda/products.h"

namespace caravan::cuda {
namespace {

constexpr int kLeastComputeCapability = 80;  // bfloat16 tensor cores, asynchronous copies

/// Throws DeviceError with the call and where it stands unless `status` is cudaSuccess.
void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status != cudaSuccess) {
    fail<DeviceError>("{} ({}:{}): {} ({}); {}", call, file, line, cudaGetErrorName(status),
                      cudaGetErrorString(status), remedy(status));
  }
}
#define CARAVAN_CUDA(call) check((call), #call, __FILE_NAME__, __LINE__)

DeviceFacts facts_of(int index) {
  cudaDeviceProp properties{};
  CARAVAN_CUDA(cudaGetDeviceProperties(&properties, index));
  DeviceFacts facts{.name = properties.name,
                    .index = index,
                    .compute_capability = 10 * properties.major + properties.minor,
                    .multiprocessors = properties.multiProcessorCount,
                    .shared_bytes = static_cast<std::int64_t>(properties.sharedMemPerBlockOptin),
                    .memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem),
                    .workspace_bytes = Products::kWorkspaceBytes};
  for (const char byte : properties.uuid.bytes) {
    facts.memory_id += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  if (facts.compute_capability < kLeastComputeCapability) {
    fail<DeviceError>(
        "GPU {} ({}) has compute capability {}.{}, and the kernels need 8.0 (Ampere) or later; choose "
        "another GPU with CUDA_VISIBLE_DEVICES, or device: cpu",
        index, facts.name, properties.major, properties.minor);
  }
  return facts;
}

class GraphRecording final : public Recording {
 public:
  /// Takes the graph over.
  GraphRecording(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate", __FILE_NAME__, __LINE__);
  }
  ~GraphRecording() override { cudaGraphExecDestroy(executable_); }
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;
  GraphRecording(GraphRecording&&) = delete;
  GraphRecording& operator=(GraphRecording&&) = delete;

  void replay(Stream& /*stream*/) override { CARAVAN_CUDA(cudaGraphLaunch(executable_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int index) : facts_(facts_of(index)) {
    CARAVAN_CUDA(cudaSetDevice(index));
    facts_.free_bytes = CudaRuntime::free_bytes();
    for (cudaStream_t& stream : streams_) {
      CARAVAN_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    }
  }
  /// Errors of work that nobody waited for are of no use to anybody any more.
  ~CudaRuntime() override {
    for (const cudaStream_t stream : streams_) {
      cudaStreamDestroy(stream);
    }
  }
  CudaRuntime(const CudaRuntime&) = delete;
  CudaRuntime& operator=(const CudaRuntime&) = delete;
  CudaRuntime(CudaRuntime&&) = delete;
  CudaRuntime& operator=(CudaRuntime&&) = delete;

  const DeviceFacts& facts() const override { return facts_; }
  std::int64_t free_bytes() const override {
    std::size_t free = 0;
    std::size_t total = 0;
    CARAVAN_CUDA(cudaMemGetInfo(&free, &total));
    return static_cast<std::int64_t>(free);
  }

  Buffer allocate(std::int64_t bytes) override {
    if (bytes == 0) {
      return {nullptr, 0, {DeviceKind::kCuda, facts_.index}, [](void*) {}};
    }
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, static_cast<std::size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is not sticky: the next launch must not find it
      fail_full(bytes);
    }
    CARAVAN_CUDA(status);
    Buffer buffer(memory, bytes, {DeviceKind::kCuda, facts_.index}, [](void* data) { cudaFree(data); });
    const cudaStream_t stream = streams_[0];
    CARAVAN_CUDA(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), stream));
    CARAVAN_CUDA(cudaStreamSynchronize(stream));
    return buffer;
  }

  Buffer allocate_pinned(std::int64_t bytes) override {
    if (bytes == 0) {
      return {nullptr, 0, {}, [](void*) {}};
    }
    void* memory = nullptr;
    const cudaError_t status = cudaHostAlloc(&memory, static_cast<std::size_t>(bytes), cudaHostAllocDefault);
    if (status != cudaSuccess) {
      cudaGetLastError();
      fail<DeviceError>(
          "could not allocate {} bytes of page-locked host memory: {}; look at the limit on locked memory "
          "(ulimit -l) and at what the machine has left",
          bytes, cudaGetErrorString(status));
    }
    std::fill_n(static_cast<std::byte*>(memory), bytes, std::byte{0});
    return {memory, bytes, {}, [](void* data) { cudaFreeHost(data); }};
  }

  StreamHandle stream(StreamId id) override { return streams_[static_cast<std::size_t>(id)]; }
  void synchronize(StreamHandle stream) override { CARAVAN_CUDA(cudaStreamSynchronize(stream)); }

  void copy(void* to, const void* from, std::int64_t bytes, StreamHandle stream) override {
    if (bytes > 0) {
      CARAVAN_CUDA(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream));
    }
  }
  void zero(void* memory, std::int64_t bytes, StreamHandle stream) override {
    if (bytes > 0) {
      CARAVAN_CUDA(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), stream));
    }
  }
  void matmul(const Product& product, StreamHandle stream) override {
    if (product.a.numel() == 0) {
      if (!product.add) {
        zero(product.c.raw(), product.c.bytes(), stream);
      }
      return;
    }
    products_.run(product, workspace_of(stream), stream);
  }

  /// What it enqueues is captured like everything else.
  void call_library(const std::function<void()>& call, StreamHandle /*stream*/) override { call(); }

  bool can_record() const override { return !syncs_kernels(); }
  void begin_recording(StreamHandle stream) override {
    // Other threads may call CUDA meanwhile.
    CARAVAN_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  }
  std::unique_ptr<Recording> end_recording(StreamHandle stream) override {
    cudaGraph_t graph = nullptr;
    CARAVAN_CUDA(cudaStreamEndCapture(stream, &graph));
    auto recording = std::make_unique<GraphRecording>(graph, stream);
    return recording;
  }

  void range_begin(const char* name) override { nvtxRangePushA(name); }
  void range_end() override { nvtxRangePop(); }

 private:
  [[noreturn]] void fail_full(std::int64_t bytes) const {
    std::size_t free = 0;
    std::size_t total = 0;
    cudaMemGetInfo(&free, &total);
    fail<DeviceError>(
        "out of memory on GPU {} ({}): could not allocate {} bytes, {} of {} bytes are free; see with "
        "nvidia-smi who holds the rest, use smaller batches or shorter rows, or more GPUs",
        facts_.index, facts_.name, bytes, free, total);
  }
  /// Two products that run at the same time may not share one.
  void* workspace_of(StreamHandle stream) {
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      if (streams_[i] == stream) {
        if (workspaces_[i].bytes() == 0) {
          workspaces_[i] = allocate(Products::kWorkspaceBytes);
        }
        return workspaces_[i].data();
      }
    }
    fail<InternalError>("a product on a stream that is not the runtime's");
  }

  DeviceFacts facts_;
  std::array<cudaStream_t, kStreamCount> streams_{};
  Products products_;
  std::array<Buffer, kStreamCount> workspaces_;
};

}  // namespace

OpenDevice open_device(int index) {
  if (const DeviceCount usable = count_devices(); index >= usable.count) {
    fail<DeviceError>("{}", usable.count == 0 ? usable.reason_for_none
                                              : fmt::format("there is no GPU {}: this process has {}", index,
                                                            usable.count));
  }
  OpenDevice device{std::make_unique<CudaRuntime>(index), nullptr};
  device.backend = make_cuda_backend(*device.runtime);
  return device;
}

}  // namespace caravan::cuda

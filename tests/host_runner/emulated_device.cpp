#include "host_runner/emulated_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "caravan/core/error.h"
#include "host_runner/host_runner.h"

namespace caravan::host_runner {
namespace {

using namespace caravan::cuda;

/// CARAVAN_EMULATED_BYTES, for tests of the whole program; 16 GiB else.
std::int64_t limit_from_environment() {
  const char* bytes = std::getenv("CARAVAN_EMULATED_BYTES");
  return bytes != nullptr ? std::atoll(bytes) : std::int64_t{1} << 34;
}

/// All memory of the device, closed but while somebody of the device works on it.
class DeviceMemory {
 public:
  static DeviceMemory& instance() {
    static DeviceMemory memory;
    return memory;
  }

  void* allocate(std::int64_t bytes) {
    CARAVAN_CHECK(!is_recording(), "{} bytes are allocated inside a recording", bytes);
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t rounded = (static_cast<std::size_t>(bytes) + page) / page * page;
    if (used_ + bytes > limit_) {
      fail<DeviceError>(
          "out of device memory: could not allocate {} bytes on the emulated device, {} of {} bytes are "
          "free; "
          "use fewer rows per batch (training.micro_batch), a smaller data.max_seq_len, training.recompute "
          "or "
          "more ranks (caravan train --dry-run shows the memory plan)",
          bytes, limit_ - used_, limit_);
    }
    void* data = mmap(nullptr, rounded, is_open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CARAVAN_CHECK(data != MAP_FAILED, "no memory for {} emulated bytes", bytes);
    pieces_[data] = {rounded, bytes};
    used_ += bytes;
    ++activity.allocations;
    return data;
  }
  void release(void* data) {
    const auto found = pieces_.find(data);
    if (found != pieces_.end()) {
      used_ -= found->second.bytes;
      munmap(data, found->second.mapped);
      pieces_.erase(found);
    }
  }
  void open() {
    if (is_open_++ == 0) {
      protect(PROT_READ | PROT_WRITE);
    }
  }
  void close() {
    if (--is_open_ == 0) {
      protect(PROT_NONE);
    }
  }
  void set_limit(std::int64_t bytes) { limit_ = bytes; }
  std::int64_t limit() const { return limit_; }
  std::int64_t free_bytes() const { return limit_ - used_; }

  DeviceActivity activity;

 private:
  struct Piece {
    std::size_t mapped;
    std::int64_t bytes;
  };
  void protect(int access) {
    for (const auto& [data, piece] : pieces_) {
      mprotect(data, piece.mapped, access);
    }
  }

  std::map<void*, Piece> pieces_;
  std::int64_t used_ = 0;
  std::int64_t limit_ = limit_from_environment();
  int is_open_ = 0;
};

struct Access {
  Access() { DeviceMemory::instance().open(); }
  ~Access() { DeviceMemory::instance().close(); }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  Access(Access&&) = delete;
  Access& operator=(Access&&) = delete;
};

double load(const TensorView& view, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * view.dim(1) + col;
  if (view.dtype() == DType::kBFloat16) {
    return static_cast<double>(to_float(view.data<BFloat16>()[at]));
  }
  if (view.dtype() == DType::kFloat16) {
    return static_cast<double>(to_float(view.data<Float16>()[at]));
  }
  return static_cast<double>(view.data<float>()[at]);
}

void store(const TensorView& view, std::int64_t row, std::int64_t col, double value) {
  const std::int64_t at = row * view.dim(1) + col;
  if (view.dtype() == DType::kBFloat16) {
    view.data<BFloat16>()[at] = to_bfloat16(static_cast<float>(value));
  } else if (view.dtype() == DType::kFloat16) {
    view.data<Float16>()[at] = to_float16(static_cast<float>(value));
  } else {
    view.data<float>()[at] = static_cast<float>(value);
  }
}

class QueueRecording final : public Recording {
 public:
  explicit QueueRecording(Queue work) : work_(std::move(work)) {}
  void replay(Stream& /*stream*/) override {
    for (const auto& each : work_) {
      each();
    }
  }

 private:
  Queue work_;
};

/// Runs everything at once and in the order of the calls, which is one order that queues allow.
class EmulatedRuntime final : public DeviceRuntime {
 public:
  explicit EmulatedRuntime(int index)
      : facts_{.name = "emulated device",
               .index = index,
               .compute_capability = 80,
               .multiprocessors = 4,
               .memory_bytes = DeviceMemory::instance().limit(),
               .free_bytes = DeviceMemory::instance().free_bytes(),
               .driver_version = 0} {
    set_launch_gate([](bool begins) {
      if (begins) {
        DeviceMemory::instance().open();
        ++DeviceMemory::instance().activity.launches;
      } else {
        DeviceMemory::instance().close();
      }
    });
  }
  ~EmulatedRuntime() override { set_launch_gate(nullptr); }
  EmulatedRuntime(const EmulatedRuntime&) = delete;
  EmulatedRuntime& operator=(const EmulatedRuntime&) = delete;
  EmulatedRuntime(EmulatedRuntime&&) = delete;
  EmulatedRuntime& operator=(EmulatedRuntime&&) = delete;

  const DeviceFacts& facts() const override { return facts_; }
  std::int64_t free_bytes() const override { return DeviceMemory::instance().free_bytes(); }
  Buffer allocate(std::int64_t bytes) override {
    return {
        DeviceMemory::instance().allocate(bytes), bytes, {DeviceKind::kCuda, facts_.index}, [](void* data) {
          DeviceMemory::instance().release(data);
        }};
  }
  Buffer allocate_pinned(std::int64_t bytes) override { return allocate_host(bytes); }
  StreamHandle stream(StreamId) override { return nullptr; }
  void synchronize(StreamHandle) override {
    CARAVAN_CHECK(!is_recording(), "the host waits inside a recording");
    ++DeviceMemory::instance().activity.synchronizations;
  }
  void copy(void* to, const void* from, std::int64_t bytes, StreamHandle) override {
    enqueue([=] {
      const Access access;
      std::memmove(to, from, static_cast<std::size_t>(bytes));
    });
  }
  void zero(void* memory, std::int64_t bytes, StreamHandle) override {
    if (bytes > 0) {
      enqueue([=] {
        const Access access;
        std::memset(memory, 0, static_cast<std::size_t>(bytes));
      });
    }
  }
  void matmul(const Product& product, StreamHandle) override {
    enqueue([=] { multiply(product); });
  }
  void call_library(const std::function<void()>& call, StreamHandle) override {
    enqueue([call] {
      const Access access;
      ++DeviceMemory::instance().activity.launches;
      call();
    });
  }
  void begin_recording(StreamHandle) override { set_queue(&queue_); }
  std::unique_ptr<Recording> end_recording(StreamHandle) override {
    set_queue(nullptr);
    return std::make_unique<QueueRecording>(std::exchange(queue_, {}));
  }

 private:
  static void multiply(const Product& product) {
    const Access access;
    ++DeviceMemory::instance().activity.launches;
    const bool turns_a = product.form == Product::Form::kTn;
    const bool turns_b = product.form == Product::Form::kNt;
    const std::int64_t inner = product.a.dim(turns_a ? 0 : 1);
    for (std::int64_t i = 0; i < product.c.dim(0); ++i) {
      for (std::int64_t j = 0; j < product.c.dim(1); ++j) {
        double sum = product.add ? load(product.c, i, j) : 0.0;
        for (std::int64_t k = 0; k < inner; ++k) {
          sum += (turns_a ? load(product.a, k, i) : load(product.a, i, k)) *
                 (turns_b ? load(product.b, j, k) : load(product.b, k, j));
        }
        store(product.c, i, j, sum);
      }
    }
  }

  DeviceFacts facts_;
  Queue queue_;
};

}  // namespace

DeviceActivity device_activity() {
  return DeviceMemory::instance().activity;
}

void set_device_memory(std::int64_t bytes) {
  DeviceMemory::instance().set_limit(bytes);
}

}  // namespace caravan::host_runner

namespace caravan::cuda {

DeviceCount count_devices() {
  return {.count = 1, .reason_for_none = ""};
}

std::string build_description() {
  return "emulated CUDA";
}

OpenDevice open_device(int index) {
  OpenDevice device{std::make_unique<host_runner::EmulatedRuntime>(index), nullptr};
  device.backend = make_cuda_backend(*device.runtime);
  return device;
}

}  // namespace caravan::cuda

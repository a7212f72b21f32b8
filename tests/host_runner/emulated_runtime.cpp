#include "host_runner/emulated_runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "caravan/core/error.h"
#include "host_runner/device_queues.h"
#include "host_runner/emulated_environment.h"
#include "host_runner/emulated_memory.h"
#include "host_runner/host_runner.h"

namespace caravan::host_runner {
namespace {

using namespace caravan::cuda;

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

/// One more kernel, product or call of a library has its turn. A fault comes out as those of kernels do:
/// where the host next waits for the device, which has forgotten what it was given.
void count_launch() {
  static const std::int64_t faulty = from_environment("CARAVAN_EMULATED_FAULT", std::int64_t{0});
  if (const std::int64_t number = ++DeviceMemory::instance().activity.launches; number == faulty) {
    fail<DeviceError>(
        "emulated fault of launch {} (CARAVAN_EMULATED_FAULT): an illegal memory access was encountered",
        number);
  }
}

void multiply(const Product& product) {
  count_launch();
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

DeviceQueues& queues() {
  return DeviceQueues::instance();
}

DeviceMemory& memory() {
  return DeviceMemory::instance();
}

/// Queues other than the one that is replayed on are the recording's own, as the branches of a CUDA graph
/// are: nothing orders them with what is enqueued on the queues that were recorded.
class QueueRecording final : public Recording {
 public:
  using Steps = std::vector<DeviceQueues::RecordedStep>;

  QueueRecording(Steps steps, StreamHandle stream)
      : steps_(std::make_shared<const Steps>(std::move(steps))), handles_{stream} {
    std::size_t last = 0;
    for (const auto& step : *steps_) {
      last = std::max(last, step.queue);
    }
    while (handles_.size() <= last) {
      handles_.push_back(queues().make());
    }
  }
  ~QueueRecording() override {
    queues().finish();
    for (std::size_t i = 1; i < handles_.size(); ++i) {
      queues().drop(handles_[i]);
    }
  }
  QueueRecording(const QueueRecording&) = delete;
  QueueRecording& operator=(const QueueRecording&) = delete;
  QueueRecording(QueueRecording&&) = delete;
  QueueRecording& operator=(QueueRecording&&) = delete;

  /// What it enqueues may run after this object is gone.
  void replay(Stream& /*stream*/) override {
    std::map<std::size_t, Mark> marks;
    for (std::size_t i = 0; i < steps_->size(); ++i) {
      const auto& step = (*steps_)[i];
      const StreamHandle handle = handles_[step.queue];
      if (step.makes) {
        marks[*step.makes] = queues().record(handle);
      } else if (step.waits_for) {
        queues().wait(handle, marks.at(*step.waits_for));
      } else {
        queues().enqueue(handle, [steps = steps_, i] { (*steps)[i].work(); });
      }
    }
  }

 private:
  std::shared_ptr<const Steps> steps_;
  std::vector<StreamHandle> handles_;
};

}  // namespace

EmulatedRuntime::EmulatedRuntime(int index)
    : facts_{.name = from_environment("CARAVAN_EMULATED_NAME", "emulated device"),
             .index = index,
             .compute_capability = 80,
             .multiprocessors = 4,
             .shared_bytes = std::int64_t{163} * 1024,
             .memory_bytes = memory().limit(),
             .free_bytes = memory().free_bytes(),
             .workspace_bytes = from_environment("CARAVAN_EMULATED_WORKSPACE", std::int64_t{0}),
             .memory_id = from_environment("CARAVAN_EMULATED_UUID", emulated_bus_id())} {
  set_launch_gate([](bool begins) {
    if (begins) {
      count_launch();
    }
  });
  for (StreamHandle& stream : streams_) {
    stream = queues().make();
  }
}

/// Work that nobody waited for is of no use to anybody any more.
EmulatedRuntime::~EmulatedRuntime() {
  for (const StreamHandle stream : streams_) {
    queues().drop(stream);
  }
}

std::int64_t EmulatedRuntime::free_bytes() const {
  return memory().free_bytes();
}

Buffer EmulatedRuntime::allocate(std::int64_t bytes) {
  return {memory().allocate(bytes), bytes, {DeviceKind::kCuda, facts_.index}, [](void* data) {
            memory().release(data);
          }};
}

Buffer EmulatedRuntime::allocate_pinned(std::int64_t bytes) {
  return {memory().allocate_pinned(bytes), bytes, {}, [](void* data) { memory().release(data); }};
}

void EmulatedRuntime::synchronize(StreamHandle stream) {
  CARAVAN_CHECK(!queues().is_recording(), "the host waits inside a recording");
  ++memory().activity.synchronizations;
  queues().synchronize(stream);
}

void EmulatedRuntime::copy(void* to, const void* from, std::int64_t bytes, StreamHandle stream) {
  if (bytes == 0) {
    return;
  }
  using Kind = DeviceMemory::Kind;
  const Kind source = memory().kind_of(from);
  const Kind target = memory().kind_of(to);
  const auto count = static_cast<std::size_t>(bytes);
  CARAVAN_CHECK(!queues().is_recording(stream) || (source != Kind::kPageable && target != Kind::kPageable),
                "{} bytes of pageable memory are copied inside a recording", bytes);
  if (source == Kind::kPageable && target == Kind::kDevice) {
    const auto* first = static_cast<const std::byte*>(from);
    queues().enqueue(stream, [to, staged = std::vector(first, first + count)] {
      std::memcpy(to, staged.data(), staged.size());
    });
    return;
  }
  queues().enqueue(stream, [=] { std::memmove(to, from, count); });
  if (target == Kind::kPageable || (source != Kind::kDevice && target != Kind::kDevice)) {
    queues().synchronize(stream);
  }
}

void EmulatedRuntime::zero(void* data, std::int64_t bytes, StreamHandle stream) {
  if (bytes > 0) {
    queues().enqueue(stream, [=] { std::memset(data, 0, static_cast<std::size_t>(bytes)); });
  }
}

void EmulatedRuntime::matmul(const Product& product, StreamHandle stream) {
  queues().enqueue(stream, [=] { multiply(product); });
}

void EmulatedRuntime::call_library(const std::function<void()>& call, StreamHandle stream) {
  queues().enqueue(stream, [call] {
    count_launch();
    call();
  });
}

bool EmulatedRuntime::can_record() const {
  const char* value = std::getenv("CARAVAN_SYNC_KERNELS");
  return value == nullptr || std::string_view(value) != "1";
}

void EmulatedRuntime::begin_recording(StreamHandle stream) {
  queues().begin_recording(stream);
}

std::unique_ptr<Recording> EmulatedRuntime::end_recording(StreamHandle stream) {
  return std::make_unique<QueueRecording>(queues().end_recording(stream), stream);
}

}  // namespace caravan::host_runner

#include "kernels/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "caravan/backend/device_memory.h"
#include "caravan/core/error.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/launchers.h"
#include "kernels/reference/elementwise.h"

namespace caravan {
namespace {

using cuda::Product;
using cuda::StreamHandle;

/// Scratch memory of ops, one piece per queue: while ops of new shapes come it is replaced by larger ones.
/// Those that were replaced stay, since passes that were recorded before have their addresses; as each is at
/// least twice the last, all of them together are smaller than the one in use.
class DeviceScratch {
 public:
  explicit DeviceScratch(cuda::DeviceRuntime& runtime) : runtime_(runtime) {}

  cuda::Workspace get(std::int64_t bytes, StreamId id) {
    std::vector<Buffer>& pieces = pieces_.at(static_cast<std::size_t>(id));
    const std::int64_t there = pieces.empty() ? 0 : pieces.back().bytes();
    if (pieces.empty() || there < bytes) {
      pieces.push_back(runtime_.allocate(std::max(bytes, 2 * there)));
    }
    return {pieces.back().data(), pieces.back().bytes()};
  }

 private:
  cuda::DeviceRuntime& runtime_;
  std::array<std::vector<Buffer>, kStreamCount> pieces_;
};

/// Page-locked memory for what the host sends: it stays until the device has been waited for, so that nobody
/// waits for a copy.
class Outbox {
 public:
  explicit Outbox(cuda::DeviceRuntime& runtime) : runtime_(runtime) {}

  void send(const void* from, void* to, std::int64_t bytes, StreamHandle stream) {
    if (held_ + bytes > kMostBytes) {
      runtime_.synchronize(stream);
      clear();
    }
    void* const place = take(bytes);
    std::memcpy(place, from, static_cast<std::size_t>(bytes));
    runtime_.copy(to, place, bytes, stream);
  }
  /// Everything that was sent has arrived.
  void clear() { held_ = block_ = used_ = 0; }

 private:
  static constexpr std::int64_t kMostBytes = std::int64_t{64} << 20U;
  static constexpr std::int64_t kBlockBytes = std::int64_t{1} << 20U;
  static constexpr std::int64_t kAlignment = 64;

  void* take(std::int64_t bytes) {
    const auto count = static_cast<std::int64_t>(blocks_.size());
    const auto has_room = [&] { return used_ + bytes <= blocks_[static_cast<std::size_t>(block_)].bytes(); };
    while (block_ < count && !has_room()) {
      ++block_;
      used_ = 0;
    }
    if (block_ == count) {
      blocks_.push_back(runtime_.allocate_pinned(std::max(bytes, kBlockBytes)));
    }
    void* const place = static_cast<std::byte*>(blocks_[static_cast<std::size_t>(block_)].data()) + used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    held_ += bytes;
    return place;
  }

  cuda::DeviceRuntime& runtime_;
  std::vector<Buffer> blocks_;
  std::int64_t block_ = 0;  // the one that is being filled
  std::int64_t used_ = 0;   // of it
  std::int64_t held_ = 0;   // of all
};

/// The step's numbers in device memory. Kernels read them there, so that a change needs no new launch; they
/// are sent when an op meets other numbers than those it was sent.
class DeviceScalars {
 public:
  DeviceScalars(cuda::DeviceRuntime& runtime, Outbox& outbox)
      : outbox_(outbox), memory_(runtime.allocate(sizeof(StepScalars))) {
    sent_.fill(std::byte{0xff});  // equal to no numbers
  }

  const StepScalars* get(const StepScalars& scalars, StreamHandle stream) {
    // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): no padding; other bits may be sent again
    if (std::memcmp(sent_.data(), &scalars, sizeof(StepScalars)) != 0) {
      outbox_.send(&scalars, memory_.data(), sizeof(StepScalars), stream);
      std::memcpy(sent_.data(), &scalars, sizeof(StepScalars));
    }
    return static_cast<const StepScalars*>(memory_.data());
  }

 private:
  static_assert(std::has_unique_object_representations_v<std::array<std::uint64_t, 4>> &&
                    sizeof(StepScalars) == 4 * sizeof(std::uint64_t),
                "no padding: the bytes are compared");
  Outbox& outbox_;
  Buffer memory_;
  std::array<std::byte, sizeof(StepScalars)> sent_{};
};

class CudaBackend final : public Backend, private DeviceCopier {
 public:
  CudaBackend(cuda::DeviceRuntime& runtime, std::unique_ptr<cudnn::PlannedAttention> attention)
      : runtime_(runtime),
        name_(describe(runtime.facts())),
        scratch_(runtime),
        outbox_(runtime),
        scalars_(runtime, outbox_),
        cudnn_(std::move(attention)) {
    previous_copier_ = set_device_copier(this);
  }
  ~CudaBackend() override { set_device_copier(previous_copier_); }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;
  CudaBackend(CudaBackend&&) = delete;
  CudaBackend& operator=(CudaBackend&&) = delete;

  std::string_view name() const override { return name_; }
  Device device() const override { return {DeviceKind::kCuda, runtime_.facts().index}; }
  bool supports(DType dtype) const override {
    return dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16;
  }
  Buffer allocate(std::int64_t bytes) override { return runtime_.allocate(bytes); }
  Buffer allocate_pinned(std::int64_t bytes) override { return runtime_.allocate_pinned(bytes); }

  bool can_record() const override { return runtime_.can_record(); }
  void begin_recording(Stream& stream) override { runtime_.begin_recording(handle(stream)); }
  std::unique_ptr<Recording> end_recording(Stream& stream) override {
    return runtime_.end_recording(handle(stream));
  }
  void send_scalars(const StepScalars& scalars, Stream& stream) override {
    scalars_.get(scalars, handle(stream));
  }
  void send(const void* from, const TensorView& to, Stream& stream) override {
    CARAVAN_CHECK(stream.id == StreamId::kCompute && to.is_contiguous(), "{} is sent on stream {}", to.str(),
                  static_cast<int>(stream.id));
    outbox_.send(from, to.raw(), to.bytes(), handle(stream));
  }
  void range_begin(const char* name) override { runtime_.range_begin(name); }
  void range_end() override { runtime_.range_end(); }

  void matmul_nt(const MatmulNtArgs& args, Stream& stream) override {
    multiply(Product::Form::kNt, args.a, dense(args.b), args.c, args.accumulate, stream);
  }
  void matmul_nn(const MatmulNnArgs& args, Stream& stream) override {
    multiply(Product::Form::kNn, args.a, dense(args.b), args.c, args.accumulate, stream);
  }
  void matmul_tn(const MatmulTnArgs& args, Stream& stream) override {
    multiply(Product::Form::kTn, args.a, args.b, args.c, args.accumulate, stream);
  }
  void embedding_forward(const EmbeddingForwardArgs& args, Stream& stream) override {
    cuda::embedding_forward(args, handle(stream));
  }
  void embedding_backward(const EmbeddingBackwardArgs& args, Stream& stream) override {
    cuda::embedding_backward(args, scratch(cuda::embedding_backward_workspace_bytes(args), stream),
                             handle(stream));
  }
  void rmsnorm_forward(const RmsNormForwardArgs& args, Stream& stream) override {
    cuda::rmsnorm_forward(args, handle(stream));
  }
  void rmsnorm_backward(const RmsNormBackwardArgs& args, Stream& stream) override {
    cuda::rmsnorm_backward(args, scratch(cuda::rmsnorm_backward_workspace_bytes(args), stream),
                           handle(stream));
  }
  void rope(const RopeArgs& args, Stream& stream) override { cuda::rope(args, handle(stream)); }
  void attention_forward(const AttentionForwardArgs& args, Stream& stream) override {
    if (cudnn_ == nullptr || !cudnn_->forward(args, handle(stream))) {
      cuda::attention_forward(args, handle(stream));
    }
  }
  void attention_backward(const AttentionBackwardArgs& args, Stream& stream) override {
    if (cudnn_ == nullptr || !cudnn_->backward(args, handle(stream))) {
      cuda::attention_backward(args, scratch(cuda::attention_backward_workspace_bytes(args.shape), stream),
                               handle(stream));
    }
  }
  void attention_merge(const AttentionMergeArgs& args, Stream& stream) override {
    cuda::attention_merge(args, handle(stream));
  }
  void swiglu_forward(const SwigluForwardArgs& args, Stream& stream) override {
    cuda::swiglu_forward(args, handle(stream));
  }
  void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) override {
    cuda::swiglu_backward(args, handle(stream));
  }
  void cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream& stream) override {
    cuda::cross_entropy_stats(args, handle(stream));
  }
  void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream& stream) override {
    cuda::cross_entropy_rescale(args, handle(stream));
  }
  void cross_entropy_loss(const CrossEntropyLossArgs& args, Stream& stream) override {
    cuda::cross_entropy_loss(args, handle(stream));
  }
  void cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream& stream) override {
    CrossEntropyBackwardArgs on_device = args;
    on_device.scalars = scalars_.get(*args.scalars, handle(stream));
    cuda::cross_entropy_backward(on_device, handle(stream));
  }
  void cross_entropy(const CrossEntropyArgs& args, Stream& stream) override {
    CrossEntropyArgs on_device = args;
    if (args.logits_after == LogitsAfter::kGradient) {
      on_device.scalars = scalars_.get(*args.scalars, handle(stream));
    }
    cuda::cross_entropy(on_device, handle(stream));
  }
  void add(const AddArgs& args, Stream& stream) override { cuda::add(args, handle(stream)); }
  void scale(const ScaleArgs& args, Stream& stream) override { cuda::scale(args, handle(stream)); }
  void zero(const ZeroArgs& args, Stream& stream) override {
    runtime_.zero(args.x.raw(), args.x.bytes(), handle(stream));
  }
  void dropout(const DropoutArgs& args, Stream& stream) override {
    DropoutArgs on_device = args;
    on_device.scalars = scalars_.get(*args.scalars, handle(stream));
    cuda::dropout(on_device, handle(stream));
  }
  void copy(const CopyArgs& args, Stream& stream) override;
  void sum(const SumArgs& args, Stream& stream) override {
    cuda::sum(args, scratch(cuda::sum_workspace_bytes(args.x), stream), handle(stream));
  }
  void sum_squares(const SumSquaresArgs& args, Stream& stream) override {
    cuda::sum_squares(args, scratch(cuda::sum_workspace_bytes(args.x), stream), handle(stream));
  }
  void prepare_update(const PrepareUpdateArgs& args, Stream& stream) override {
    cuda::prepare_update(args, handle(stream));
  }
  void adamw(const AdamwArgs& args, Stream& stream) override {
    AdamwArgs on_device = args;
    on_device.scalars = scalars_.get(*args.scalars, handle(stream));
    cuda::adamw(on_device, handle(stream));
  }
  void random_normal(const RandomNormalArgs& args, Stream& stream) override {
    cuda::random_normal(args, handle(stream));
  }

 private:
  static std::string describe(const cuda::DeviceFacts& facts) {
    return fmt::format("cuda ({}, sm_{}, {} multiprocessors{})", facts.name, facts.compute_capability,
                       facts.multiprocessors, cuda::uses_hopper_attention() ? ", Hopper attention" : "");
  }
  static const TensorView& dense(const WeightView& weight) { return std::get<DenseWeight>(weight).values; }

  StreamHandle handle(const Stream& stream) { return runtime_.stream(stream.id); }
  cuda::Workspace scratch(std::int64_t bytes, const Stream& stream) { return scratch_.get(bytes, stream.id); }
  void multiply(Product::Form form, const TensorView& a, const TensorView& b, const TensorView& c,
                Accumulate accumulate, Stream& stream) {
    if (c.numel() > 0) {
      runtime_.matmul({.form = form, .a = a, .b = b, .c = c, .add = accumulate == Accumulate::kAdd},
                      handle(stream));
    }
  }
  void copy_to_device(const CopyArgs& args, Stream& stream);
  void copy_from_device(const CopyArgs& args, Stream& stream);
  /// A contiguous view of the scratch memory, of another tensor's shape.
  TensorView scratch_for(const TensorView& like, Stream& stream) {
    return {scratch(like.numel() * static_cast<std::int64_t>(dtype_bytes(like.dtype())), stream).data,
            like.dtype(), like.shape(), device()};
  }

  // DeviceCopier
  void copy(void* to, const void* from, std::int64_t bytes) override {
    const StreamHandle stream = runtime_.stream(StreamId::kCompute);
    runtime_.copy(to, from, bytes, stream);
    runtime_.synchronize(stream);
    outbox_.clear();
  }

  DeviceCopier* previous_copier_ = nullptr;
  cuda::DeviceRuntime& runtime_;
  std::string name_;
  DeviceScratch scratch_;
  Outbox outbox_;
  DeviceScalars scalars_;
  std::unique_ptr<cudnn::PlannedAttention> cudnn_;  // null: Caravan's own attention computes everything
};

void CudaBackend::copy(const CopyArgs& args, Stream& stream) {
  const bool from_device = args.from.device().kind == DeviceKind::kCuda;
  const bool to_device = args.to.device().kind == DeviceKind::kCuda;
  if (args.from.numel() == 0) {
    return;
  }
  if (!from_device && !to_device) {
    reference::copy(args);
  } else if (!from_device) {
    copy_to_device(args, stream);
  } else if (!to_device) {
    copy_from_device(args, stream);
  } else if (args.from.dtype() == args.to.dtype() && args.from.is_contiguous() && args.to.is_contiguous()) {
    runtime_.copy(args.to.raw(), args.from.raw(), args.from.bytes(), handle(stream));
  } else if (args.from.dtype() == DType::kFloat64 || args.to.dtype() == DType::kFloat64) {
    // A few numbers of a test: no kernel for them.
    const Buffer memory = allocate_host(args.from.bytes());
    const TensorView arrived = memory.view(0, args.from.dtype(), args.from.shape());
    copy_from_device({.from = args.from, .to = arrived}, stream);
    copy_to_device({.from = arrived, .to = args.to}, stream);
  } else {
    cuda::copy(args, handle(stream));
  }
}

/// The host converts, the device spreads strided rows.
void CudaBackend::copy_to_device(const CopyArgs& args, Stream& stream) {
  const bool is_whole = args.to.is_contiguous();
  const TensorView target = is_whole ? args.to : scratch_for(args.to, stream);
  if (args.from.dtype() == args.to.dtype() && args.from.is_contiguous()) {
    runtime_.copy(target.raw(), args.from.raw(), args.from.bytes(), handle(stream));
    runtime_.synchronize(handle(stream));
  } else {
    const Buffer memory = allocate_host(target.bytes());
    const TensorView converted = memory.view(0, target.dtype(), target.shape());
    reference::copy({.from = args.from, .to = converted});
    runtime_.copy(target.raw(), converted.raw(), converted.bytes(), handle(stream));
    runtime_.synchronize(handle(stream));
  }
  if (!is_whole) {
    cuda::copy({.from = target, .to = args.to}, handle(stream));
  }
}

void CudaBackend::copy_from_device(const CopyArgs& args, Stream& stream) {
  TensorView source = args.from;
  if (!source.is_contiguous()) {
    source = scratch_for(args.from, stream);
    cuda::copy({.from = args.from, .to = source}, handle(stream));
  }
  const bool is_direct = args.from.dtype() == args.to.dtype() && args.to.is_contiguous();
  const Buffer memory = is_direct ? Buffer() : allocate_host(source.bytes());
  const TensorView arrived = is_direct ? args.to : memory.view(0, source.dtype(), source.shape());
  runtime_.copy(arrived.raw(), source.raw(), source.bytes(), handle(stream));
  runtime_.synchronize(handle(stream));
  if (!is_direct) {
    reference::copy({.from = arrived, .to = args.to});
  }
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(cuda::DeviceRuntime& runtime,
                                           std::unique_ptr<cudnn::PlannedAttention> attention) {
  cuda::choose_attention(runtime.facts().compute_capability, runtime.facts().shared_bytes);
  return std::make_unique<CudaBackend>(runtime, std::move(attention));
}

}  // namespace caravan

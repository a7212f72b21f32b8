// The table of coarse ops a device offers. Implementations: kernels/reference (definition, tests),
// kernels/cpu, and CountingBackend (computes nothing, adds up work). An op is enqueued on `stream`; on CPUs
// it is done on return.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "caravan/backend/buffer.h"
#include "caravan/backend/op_args.h"
#include "caravan/backend/recording.h"
#include "caravan/backend/stream.h"

namespace caravan {

/// Callers go through ops/, which checks shapes and dtypes; a backend may assume its arguments are
/// consistent.
class Backend {
 public:
  Backend() = default;
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  Backend(Backend&&) = delete;
  Backend& operator=(Backend&&) = delete;

  /// For the plan printout: "cpu (OpenBLAS, avx2)".
  virtual std::string_view name() const = 0;
  virtual Device device() const = 0;
  /// What sizes are chosen for: the device's kind; of a backend that only counts, the kind it plans for.
  virtual DeviceKind kind() const { return device().kind; }
  /// True when ops can compute in `dtype`.
  virtual bool supports(DType dtype) const = 0;
  /// Zeroed memory on this device; throws DeviceError when there is not enough.
  virtual Buffer allocate(std::int64_t bytes) = 0;
  /// Zeroed host memory that this device copies from and to at full speed (page-locked beside a GPU); throws
  /// DeviceError when there is not enough.
  virtual Buffer allocate_pinned(std::int64_t bytes) { return allocate_host(bytes); }

  /// Where true, ops between the two calls below are remembered and not run.
  virtual bool can_record() const { return false; }
  virtual void begin_recording(Stream& stream);
  virtual std::unique_ptr<Recording> end_recording(Stream& stream);
  /// Makes `scalars` those that ops enqueued from now on read, replayed ones too. Ops send what they are
  /// given by themselves; inside a recording they cannot.
  virtual void send_scalars(const StepScalars& /*scalars*/, Stream& /*stream*/) {}
  /// Copies `to.bytes()` of host memory to a contiguous view of this device. The host may change `from` on
  /// return, and waits for nothing.
  virtual void send(const void* from, const TensorView& to, Stream& stream);
  /// A named range on a profiler's timeline, where the device has one.
  virtual void range_begin(const char* /*name*/) {}
  virtual void range_end() {}

  virtual void matmul_nt(const MatmulNtArgs& args, Stream& stream) = 0;
  virtual void matmul_nn(const MatmulNnArgs& args, Stream& stream) = 0;
  virtual void matmul_tn(const MatmulTnArgs& args, Stream& stream) = 0;
  virtual void embedding_forward(const EmbeddingForwardArgs& args, Stream& stream) = 0;
  virtual void embedding_backward(const EmbeddingBackwardArgs& args, Stream& stream) = 0;
  virtual void rmsnorm_forward(const RmsNormForwardArgs& args, Stream& stream) = 0;
  virtual void rmsnorm_backward(const RmsNormBackwardArgs& args, Stream& stream) = 0;
  virtual void rope(const RopeArgs& args, Stream& stream) = 0;
  virtual void attention_forward(const AttentionForwardArgs& args, Stream& stream) = 0;
  virtual void attention_backward(const AttentionBackwardArgs& args, Stream& stream) = 0;
  virtual void attention_merge(const AttentionMergeArgs& args, Stream& stream) = 0;
  virtual void swiglu_forward(const SwigluForwardArgs& args, Stream& stream) = 0;
  virtual void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) = 0;
  virtual void cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream& stream) = 0;
  virtual void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream& stream) = 0;
  virtual void cross_entropy_loss(const CrossEntropyLossArgs& args, Stream& stream) = 0;
  virtual void cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream& stream) = 0;
  virtual void cross_entropy(const CrossEntropyArgs& args, Stream& stream) = 0;
  virtual void add(const AddArgs& args, Stream& stream) = 0;
  virtual void scale(const ScaleArgs& args, Stream& stream) = 0;
  virtual void zero(const ZeroArgs& args, Stream& stream) = 0;
  virtual void dropout(const DropoutArgs& args, Stream& stream) = 0;
  virtual void copy(const CopyArgs& args, Stream& stream) = 0;
  virtual void sum(const SumArgs& args, Stream& stream) = 0;
  virtual void sum_squares(const SumSquaresArgs& args, Stream& stream) = 0;
  virtual void prepare_update(const PrepareUpdateArgs& args, Stream& stream) = 0;
  virtual void adamw(const AdamwArgs& args, Stream& stream) = 0;
  virtual void random_normal(const RandomNormalArgs& args, Stream& stream) = 0;
};

/// For the time of a scope.
class TimelineRange {
 public:
  TimelineRange(Backend& backend, const char* name) : backend_(backend) { backend_.range_begin(name); }
  ~TimelineRange() { backend_.range_end(); }
  TimelineRange(const TimelineRange&) = delete;
  TimelineRange& operator=(const TimelineRange&) = delete;
  TimelineRange(TimelineRange&&) = delete;
  TimelineRange& operator=(TimelineRange&&) = delete;

 private:
  Backend& backend_;
};

}  // namespace caravan

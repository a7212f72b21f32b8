// The reference ops as a backend: one thread, no blocking, no SIMD. The measure for every other backend, and
// what gradient tests run on.
#pragma once

#include "caravan/backend/backend.h"

namespace caravan {

/// Computes in float64, complex128 (complex-step tests) and float32.
class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  Device device() const override { return {DeviceKind::kCpu, 0}; }
  bool supports(DType dtype) const override;
  Buffer allocate(std::int64_t bytes) override { return allocate_host(bytes); }

  void matmul_nt(const MatmulNtArgs& args, Stream& stream) override;
  void matmul_nn(const MatmulNnArgs& args, Stream& stream) override;
  void matmul_tn(const MatmulTnArgs& args, Stream& stream) override;
  void embedding_forward(const EmbeddingForwardArgs& args, Stream& stream) override;
  void embedding_backward(const EmbeddingBackwardArgs& args, Stream& stream) override;
  void rmsnorm_forward(const RmsNormForwardArgs& args, Stream& stream) override;
  void rmsnorm_backward(const RmsNormBackwardArgs& args, Stream& stream) override;
  void rope(const RopeArgs& args, Stream& stream) override;
  void attention_forward(const AttentionForwardArgs& args, Stream& stream) override;
  void attention_backward(const AttentionBackwardArgs& args, Stream& stream) override;
  void attention_merge(const AttentionMergeArgs& args, Stream& stream) override;
  void swiglu_forward(const SwigluForwardArgs& args, Stream& stream) override;
  void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) override;
  void cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream& stream) override;
  void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream& stream) override;
  void cross_entropy_loss(const CrossEntropyLossArgs& args, Stream& stream) override;
  void cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream& stream) override;
  void cross_entropy(const CrossEntropyArgs& args, Stream& stream) override;
  void add(const AddArgs& args, Stream& stream) override;
  void scale(const ScaleArgs& args, Stream& stream) override;
  void zero(const ZeroArgs& args, Stream& stream) override;
  void dropout(const DropoutArgs& args, Stream& stream) override;
  void copy(const CopyArgs& args, Stream& stream) override;
  void sum(const SumArgs& args, Stream& stream) override;
  void sum_squares(const SumSquaresArgs& args, Stream& stream) override;
  void prepare_update(const PrepareUpdateArgs& args, Stream& stream) override;
  void adamw(const AdamwArgs& args, Stream& stream) override;
  void random_normal(const RandomNormalArgs& args, Stream& stream) override;
};

}  // namespace caravan

// Runs the same model code on shapes alone: adds up floating-point operations and bytes, computes nothing.
#pragma once

#include <cstdint>

#include "caravan/backend/backend.h"

namespace caravan {

/// Operations by kind; a multiply-add counts as two.
struct WorkCount {
  std::int64_t matmul_flops = 0;
  std::int64_t attention_flops = 0;  // visible pairs of a causal row: half the square
  std::int64_t other_bytes = 0;      // bytes read and written by ops that are limited by memory
  std::int64_t ops = 0;
  AttentionShape largest_attention = {};  // of the backward passes; of no rows where there was none
};

class CountingBackend final : public Backend {
 public:
  explicit CountingBackend(DeviceKind planned_for = DeviceKind::kCpu) : planned_for_(planned_for) {}
  const WorkCount& work() const { return work_; }

  std::string_view name() const override { return "counting"; }
  Device device() const override { return {DeviceKind::kNone, 0}; }
  DeviceKind kind() const override { return planned_for_; }
  bool supports(DType) const override { return true; }
  Buffer allocate(std::int64_t bytes) override {
    return {nullptr, bytes, device(), [](void*) {}};
  }
  Buffer allocate_pinned(std::int64_t bytes) override { return allocate(bytes); }

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

 private:
  void count_bytes(std::initializer_list<const TensorView*> views);
  DeviceKind planned_for_;
  WorkCount work_;
};

}  // namespace caravan

// The ports of one rank: nothing is divided, so nothing is exchanged.
#pragma once

#include <vector>

#include "caravan/model/parameter.h"
#include "caravan/model/ports.h"

namespace caravan {

/// The rank's tokens are all tokens. With `output_factor` n ≠ 1 partial outputs count n times (the federated
/// option that makes a slice alone stand for all n slices); its adjoint multiplies gradients by n as well.
class LocalBoundary final : public Boundary {
 public:
  explicit LocalBoundary(double output_factor = 1.0) : output_factor_(output_factor) {}
  TensorView enter(Context& ctx, const TensorView& x_stream, const Allocate& allocate) const override;
  TensorView partial_buffer(Context& ctx, const TensorView& stream) const override;
  Pending enter_backward(Context& ctx, const TensorView& dx_partial,
                         const TensorView& dx_stream) const override;
  Pending leave(Context& ctx, const TensorView& y_partial, const TensorView& y_stream) const override;
  TensorView leave_backward(Context& ctx, const TensorView& dy_stream,
                            const Allocate& allocate) const override;

 private:
  double output_factor_;
};

/// Attention over the tokens of the batch itself.
class LocalAttention final : public AttentionCore {
 public:
  void forward(Context& ctx, const AttentionCall& call, const TensorView& q, const TensorView& k,
               const TensorView& v, const TensorView& o, const TensorView& lse) const override;
  void backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const override;
};

/// Attention of new tokens over all tokens so far of one row, for generation. Owns the keys and values of
/// every layer; a batch continues the row (batch.index goes on where the last call ended). No backward.
class CachedAttention final : public AttentionCore {
 public:
  /// For `layers` of the model, with room for `capacity` tokens; `kv_width` = kv heads here · head_dim.
  CachedAttention(Backend& backend, DType dtype, Range layers, std::int64_t capacity, std::int64_t kv_width);
  void forward(Context& ctx, const AttentionCall& call, const TensorView& q, const TensorView& k,
               const TensorView& v, const TensorView& o, const TensorView& lse) const override;
  void backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const override;

  std::int64_t capacity() const { return capacity_; }
  static std::int64_t bytes(DType dtype, std::int64_t n_layers, std::int64_t capacity, std::int64_t kv_width);

 private:
  TensorView cache(int layer, int which) const;
  Range layers_;
  Buffer memory_;     // [layers, 2, capacity, kv_width]
  Buffer key_index_;  // [capacity] int32: 0, 1, 2, ...
  DType dtype_;
  std::int64_t capacity_;
  std::int64_t kv_width_;
};

/// The whole vocabulary is here.
class LocalVocab final : public VocabReduce {
 public:
  bool is_whole() const override { return true; }
  std::int64_t vocab_begin() const override { return 0; }
  void reduce(Context& ctx, const TensorView& row_max, const TensorView& row_sum,
              const TensorView& target_logit) const override;
};

/// Every parameter is always in place; leases are only counted, so that debug builds find a use without one.
class ReplicatedStore final : public ParamStore {
 public:
  explicit ReplicatedStore(ParameterSet& parameters) : parameters_(parameters) {}
  void acquire(int group, LeaseUse /*use*/) override { count(group, 1); }
  void release(int group) override { count(group, -1); }

 private:
  void count(int group, int change);
  ParameterSet& parameters_;
};

}  // namespace caravan

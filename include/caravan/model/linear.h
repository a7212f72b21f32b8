// y = x Wᵀ in three functions: forward, input gradient, weight gradient. They are apart because the input
// gradient starts a reduction that the weight products hide, frozen weights skip the last, and schedules may
// run it later.
#pragma once

#include <string_view>

#include "caravan/model/parameter.h"

namespace caravan {

class Linear {
 public:
  explicit Linear(Parameter& weight) : weight_(&weight) {}

  std::int64_t in_features() const { return weight_->shape()[1]; }
  std::int64_t out_features() const { return weight_->shape()[0]; }
  const Parameter& weight() const { return *weight_; }
  /// "layers.0.attention" of "layers.0.attention.wo.weight": whose output Trace hears under this name.
  std::string_view segment_name() const;

  /// y [T, out] = x [T, in] · Wᵀ
  void forward(Context& ctx, const TensorView& x, const TensorView& y) const;
  /// dx [T, in] = dy [T, out] · W, or += with kAdd
  void backward_input(Context& ctx, const TensorView& dy, const TensorView& dx,
                      Accumulate accumulate = Accumulate::kOverwrite) const;
  /// dW += dyᵀ · x, unless the weight is frozen
  void backward_weight(Context& ctx, const TensorView& x, const TensorView& dy) const;

 private:
  Parameter* weight_;
};

}  // namespace caravan

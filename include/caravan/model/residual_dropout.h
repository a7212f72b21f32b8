// Dropout on what a block adds to the residual stream (Vaswani et al. 2017, section 5.4): attention and MLP
// share it. It comes behind the ranks' reduction, where every rank of a layout has whole features of its own
// tokens, and it remembers nothing: the backward pass draws the mask again.
#pragma once

#include "caravan/model/ports.h"

namespace caravan {

/// Both passes do nothing, and take no memory, where ctx.dropout is 0.
class ResidualDropout {
 public:
  /// Which of a layer's two outputs.
  enum class Site : std::uint8_t { kAttention, kMlp };
  /// `boundary` outlives it: it says which tokens the stream here has.
  ResidualDropout(int layer, Site site, const Boundary& boundary)
      : number_(2 * static_cast<std::uint32_t>(layer) + static_cast<std::uint32_t>(site)),
        boundary_(&boundary) {}

  /// In place on the block's output `y` [T_stream, D].
  void forward(Context& ctx, const TokenBatch& batch, const TensorView& y) const;
  /// The gradient of that output from the stream's, `g` [T_stream, D], which is not changed: `g` itself
  /// without dropout, else scratch of `ctx`.
  TensorView backward(Context& ctx, const TokenBatch& batch, const TensorView& g) const;

 private:
  void apply(Context& ctx, const TokenBatch& batch, const TensorView& x, const TensorView& y) const;

  std::uint32_t number_;
  const Boundary* boundary_;
};

}  // namespace caravan

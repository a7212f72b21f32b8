// The MLP half of a Llama block:  y = x + leave( swiglu(xf W1ᵀ, xf W3ᵀ) W2ᵀ ),  xf = enter(rmsnorm(x))
#pragma once

#include "caravan/model/linear.h"
#include "caravan/model/norm_entry.h"
#include "caravan/model/residual_dropout.h"

namespace caravan {

class MlpSegment final : public Segment {
 public:
  struct Parts {
    Parameter& norm;  // [D]
    Parameter& w1;    // [F, D] gate, F local
    Parameter& w3;    // [F, D] up
    Parameter& w2;    // [D, F] down
    const Boundary& boundary;
    double eps = 0.0;
    int layer = 0;
  };
  explicit MlpSegment(const Parts& parts)
      : entry_(parts.norm, parts.eps, parts.boundary),
        dropout_(parts.layer, ResidualDropout::Site::kMlp, parts.boundary),
        w1_(parts.w1),
        w3_(parts.w3),
        w2_(parts.w2) {}

  std::unique_ptr<Saved> make_saved() const override;
  std::vector<int> groups() const override { return {w1_.weight().spec().group}; }
  void forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream, Saved& saved) const override;
  void backward_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                      Saved& saved) const override;
  void backward_weight(Context& ctx, const TokenBatch& batch, Saved& saved) const override;
  void finish_input(Context& ctx, const TokenBatch& batch, const TensorView& g, Saved& saved) const override;

 private:
  struct Slots;
  void materialise(Context& ctx, Slots& s) const;

  NormEntry entry_;
  ResidualDropout dropout_;
  Linear w1_, w3_, w2_;
};

}  // namespace caravan

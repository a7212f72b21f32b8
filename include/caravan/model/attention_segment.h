// The attention half of a Llama block: norm, q/k/v, rotary embedding, attention, output map.
//   y = x + leave( core(rope(xf Wqᵀ), rope(xf Wkᵀ), xf Wvᵀ) Woᵀ ),  xf = enter(rmsnorm(x))
#pragma once

#include "caravan/model/linear.h"
#include "caravan/model/norm_entry.h"
#include "caravan/model/residual_dropout.h"
#include "caravan/model/rope_table.h"

namespace caravan {

class AttentionSegment final : public Segment {
 public:
  struct Parts {
    Parameter& norm;  // [D]
    Parameter& wq;    // [H·E, D], H local
    Parameter& wk;    // [G·E, D], G local
    Parameter& wv;    // [G·E, D]
    Parameter& wo;    // [D, H·E]
    const RopeTable& rope;
    const Boundary& boundary;
    const AttentionCore& core;
    std::int64_t head_dim = 0;
    double eps = 0.0;
    int layer = 0;
  };
  explicit AttentionSegment(const Parts& parts);

  std::unique_ptr<Saved> make_saved() const override;
  std::vector<int> groups() const override { return {wq_.weight().spec().group}; }
  void forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream, Saved& saved) const override;
  void backward_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                      Saved& saved) const override;
  void backward_weight(Context& ctx, const TokenBatch& batch, Saved& saved) const override;
  void finish_input(Context& ctx, const TokenBatch& batch, const TensorView& g, Saved& saved) const override;

 private:
  struct Slots;
  void materialise(Context& ctx, const TokenBatch& batch, Slots& s) const;
  void rotate(Context& ctx, const TokenBatch& batch, const TensorView& x, RopeDirection direction) const;
  AttentionCall call(const TokenBatch& batch) const;

  NormEntry entry_;
  ResidualDropout dropout_;
  Linear wq_, wk_, wv_, wo_;
  const RopeTable* rope_;
  const AttentionCore* core_;
  std::int64_t head_dim_;
  int layer_;
};

}  // namespace caravan

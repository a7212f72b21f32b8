// Token ids to the first residual stream:  x = leave(rows of the embedding), zeros for tokens whose row
// another rank has.
#pragma once

#include "caravan/model/ports.h"
#include "caravan/model/segment.h"

namespace caravan {

class EmbeddingSegment final : public Segment {
 public:
  /// `boundary` adds up what ranks with different rows of the table contribute.
  EmbeddingSegment(Parameter& weight, const Boundary& boundary) : weight_(&weight), boundary_(&boundary) {}

  std::unique_ptr<Saved> make_saved() const override;
  std::vector<int> groups() const override { return {weight_->spec().group}; }
  void forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream, Saved& saved) const override;
  void backward_input(Context&, const TokenBatch&, const TensorView&, Saved&) const override {}
  void backward_weight(Context&, const TokenBatch&, Saved&) const override {}
  /// Adds g to the rows of the embedding's gradient.
  void finish_input(Context& ctx, const TokenBatch& batch, const TensorView& g, Saved& saved) const override;

 private:
  Parameter* weight_;  // [V, D], V local
  const Boundary* boundary_;
};

}  // namespace caravan

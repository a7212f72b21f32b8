// Context parallelism by passing keys and values round a ring of ranks: never more than two ranks' k and v
// are here at once (Liu et al. 2023). docs/derivations/attention.md has the mathematics.
#pragma once

#include "caravan/comm/communicator.h"
#include "caravan/model/ports.h"

namespace caravan {

/// Tokens are divided over `cp` as for GatherAttention. In each of c steps this rank's queries meet one
/// rank's keys; the results are joined by their log-sum-exp. The next step's messages are under way before a
/// step computes, and keys that none of the queries here sees cost no computation. Backward is a second ring
/// with the final log-sum-exp, in which the dk and dv of a rank's keys travel with them and go one step
/// further, home. Collective over `cp`, which outlives the core and whose tags it uses.
class RingAttention final : public AttentionCore {
 public:
  /// Collective over `cp`.
  explicit RingAttention(Communicator& cp);
  void forward(Context& ctx, const AttentionCall& call, const TensorView& q, const TensorView& k,
               const TensorView& v, const TensorView& o, const TensorView& lse) const override;
  void backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const override;

 private:
  Communicator& cp_;
};

}  // namespace caravan

// Context parallelism by gathering: every rank has some tokens of every row, gathers all keys and values, and
// computes attention for its own queries (Llama 3 report 2024, section 3.3.2).
#pragma once

#include "caravan/comm/communicator.h"
#include "caravan/model/ports.h"

namespace caravan {

/// The tokens of each row are divided over `cp` in any way that gives each rank the same number of every row,
/// in any order; batch.index says which they are. Forward gathers k and v in one collective, backward gathers
/// them again and sums dk and dv by one reduce_scatter. Scratch: 4 times (forward) and 6 times (backward) the
/// k of all ranks. Collective over `cp`, which outlives the core.
class GatherAttention final : public AttentionCore {
 public:
  explicit GatherAttention(Communicator& cp) : cp_(cp) {}
  void forward(Context& ctx, const AttentionCall& call, const TensorView& q, const TensorView& k,
               const TensorView& v, const TensorView& o, const TensorView& lse) const override;
  void backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const override;

 private:
  Communicator& cp_;
};

}  // namespace caravan

// A segment: a piece of the network with a hand-written forward and backward. A Llama block is two of them
// (attention, MLP); the embedding is one, and the head on the last hidden state stands at the end.
#pragma once

#include <memory>
#include <vector>

#include "caravan/model/parameter.h"
#include "caravan/model/saved.h"
#include "caravan/model/token_batch.h"

namespace caravan {

/// The residual stream between segments: x and a contribution not yet added to it. A segment starts with the
/// fused "add delta, then norm" and leaves its own output as the new delta.
struct ResidualStream {
  TensorView x;      // [T_stream, D]; inference: one buffer, updated in place
  TensorView delta;  // [T_stream, D] buffer of the caller's
  bool has_delta = false;
};

/// Stateless after construction: everything that outlives a call is in `Saved`.
class Segment {
 public:
  virtual ~Segment() = default;
  /// Fresh memory for one micro-batch's slots of this segment.
  virtual std::unique_ptr<Saved> make_saved() const = 0;
  /// Parameter groups to lease around a call.
  virtual std::vector<int> groups() const = 0;

  /// Advances `stream`, filling absent slots of `saved` on the way.
  virtual void forward(Context& ctx, const TokenBatch& batch, ResidualStream& stream, Saved& saved) const = 0;

  /// Backward in three parts; `g` [T_stream, D] is dL/d(output stream) and becomes dL/d(input stream) in
  /// finish_input. backward_input starts the input gradient's reduction, backward_weight adds the weight
  /// gradients (it hides the reduction), finish_input waits for it. Scratch stays allocated over the three
  /// calls.
  virtual void backward_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                              Saved& saved) const = 0;
  virtual void backward_weight(Context& ctx, const TokenBatch& batch, Saved& saved) const = 0;
  virtual void finish_input(Context& ctx, const TokenBatch& batch, const TensorView& g,
                            Saved& saved) const = 0;

  /// The three in order.
  void backward(Context& ctx, const TokenBatch& batch, const TensorView& g, Saved& saved) const {
    const ArenaScope scope(ctx.scratch);
    backward_input(ctx, batch, g, saved);
    backward_weight(ctx, batch, saved);
    finish_input(ctx, batch, g, saved);
    saved.forget_scratch();
  }
};

}  // namespace caravan

// Sequence parallelism: tensor parallelism whose residual stream is divided over the same ranks by tokens, so
// that norms and activations between blocks exist once (Korthikanti et al. 2022, section 4.2.2).
#pragma once

#include "caravan/comm/communicator.h"
#include "caravan/model/ports.h"

namespace caravan {

/// Of T tokens, counted through all rows of the batch, rank r of t has [r T/t, (r + 1) T/t) in its stream; T
/// must be divisible by t. enter and leave_backward gather all tokens, leave and enter_backward sum over the
/// ranks and keep this one's tokens (in rank order: reduce_scatter). enter_backward is started and completes
/// in its Pending's wait. All collective over `tp`, which outlives the boundary.
class SequenceBoundary final : public Boundary {
 public:
  explicit SequenceBoundary(Communicator& tp) : tp_(tp) {}
  /// InternalError unless `tokens` is divisible by the group's size.
  std::int64_t stream_tokens(std::int64_t tokens) const override;
  std::int64_t stream_begin(std::int64_t tokens) const override { return stream_tokens(tokens) * tp_.rank(); }
  TensorView enter(Context& ctx, const TensorView& x_stream, const Allocate& allocate) const override;
  TensorView partial_buffer(Context& ctx, const TensorView& stream) const override;
  Pending enter_backward(Context& ctx, const TensorView& dx_partial,
                         const TensorView& dx_stream) const override;
  Pending leave(Context& ctx, const TensorView& y_partial, const TensorView& y_stream) const override;
  TensorView leave_backward(Context& ctx, const TensorView& dy_stream,
                            const Allocate& allocate) const override;

 private:
  TensorView gather(const TensorView& stream, const Allocate& allocate) const;

  Communicator& tp_;
};

}  // namespace caravan

// Tensor parallelism: every rank of the group sees the whole residual stream and computes part of the heads
// or MLP rows from it (Shoeybi et al. 2019, section 3). Its sums are completed by all-reduces.
#pragma once

#include "caravan/comm/communicator.h"
#include "caravan/model/ports.h"

namespace caravan {

/// enter and leave_backward alias the stream; leave and enter_backward all-reduce it in place, so that every
/// rank ends with the same bits. enter_backward is started and completes in its Pending's wait. All
/// collective over `tp`, which outlives the boundary.
class TensorBoundary final : public Boundary {
 public:
  explicit TensorBoundary(Communicator& tp) : tp_(tp) {}
  TensorView enter(Context& ctx, const TensorView& x_stream, const Allocate& allocate) const override;
  TensorView partial_buffer(Context& ctx, const TensorView& stream) const override;
  Pending enter_backward(Context& ctx, const TensorView& dx_partial,
                         const TensorView& dx_stream) const override;
  Pending leave(Context& ctx, const TensorView& y_partial, const TensorView& y_stream) const override;
  TensorView leave_backward(Context& ctx, const TensorView& dy_stream,
                            const Allocate& allocate) const override;

 private:
  Communicator& tp_;
};

}  // namespace caravan

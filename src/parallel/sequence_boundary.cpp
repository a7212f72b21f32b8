#include "caravan/parallel/sequence_boundary.h"

namespace caravan {
namespace {

/// The region's shape from the stream's.
Shape full_shape(const TensorView& stream, int ranks) {
  Shape shape = stream.shape();
  shape.set(0, shape[0] * ranks);
  return shape;
}

}  // namespace

std::int64_t SequenceBoundary::stream_tokens(std::int64_t tokens) const {
  CARAVAN_CHECK(tokens % tp_.size() == 0, "{} tokens divided over {} ranks", tokens, tp_.size());
  return tokens / tp_.size();
}

TensorView SequenceBoundary::gather(const TensorView& stream, const Allocate& allocate) const {
  if (tp_.size() == 1) {
    return stream;
  }
  const TensorView full = allocate(full_shape(stream, tp_.size()));
  tp_.all_gather(stream, full);
  return full;
}

TensorView SequenceBoundary::enter(Context& /*ctx*/, const TensorView& x_stream,
                                   const Allocate& allocate) const {
  return gather(x_stream, allocate);
}

TensorView SequenceBoundary::partial_buffer(Context& ctx, const TensorView& stream) const {
  return tp_.size() == 1 ? stream : ctx.allocate("partial sum", full_shape(stream, tp_.size()));
}

Pending SequenceBoundary::enter_backward(Context& /*ctx*/, const TensorView& dx_partial,
                                         const TensorView& dx_stream) const {
  return tp_.start_reduce_scatter(dx_partial, dx_stream);
}

Pending SequenceBoundary::leave(Context& /*ctx*/, const TensorView& y_partial,
                                const TensorView& y_stream) const {
  return tp_.start_reduce_scatter(y_partial, y_stream);
}

TensorView SequenceBoundary::leave_backward(Context& /*ctx*/, const TensorView& dy_stream,
                                            const Allocate& allocate) const {
  return gather(dy_stream, allocate);
}

}  // namespace caravan

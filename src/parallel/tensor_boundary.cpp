#include "caravan/parallel/tensor_boundary.h"

namespace caravan {

TensorView TensorBoundary::enter(Context& /*ctx*/, const TensorView& x_stream,
                                 const Allocate& /*allocate*/) const {
  return x_stream;
}

TensorView TensorBoundary::partial_buffer(Context& /*ctx*/, const TensorView& stream) const {
  return stream;
}

Pending TensorBoundary::enter_backward(Context& /*ctx*/, const TensorView& dx_partial,
                                       const TensorView& dx_stream) const {
  CARAVAN_CHECK(dx_partial.raw() == dx_stream.raw(), "the tensor boundary reduces in place");
  return tp_.start_all_reduce(dx_stream);
}

Pending TensorBoundary::leave(Context& /*ctx*/, const TensorView& y_partial,
                              const TensorView& y_stream) const {
  CARAVAN_CHECK(y_partial.raw() == y_stream.raw(), "the tensor boundary reduces in place");
  return tp_.start_all_reduce(y_stream);
}

TensorView TensorBoundary::leave_backward(Context& /*ctx*/, const TensorView& dy_stream,
                                          const Allocate& /*allocate*/) const {
  return dy_stream;
}

}  // namespace caravan

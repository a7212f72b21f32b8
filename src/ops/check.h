// Checks shared by all ops: each throws InternalError naming the op and the operand.
#pragma once

#include "caravan/backend/context.h"
#include "caravan/core/error.h"

namespace caravan::ops_detail {

/// Contiguous, of `dtype` and `shape`, on the context's device.
inline void expect(const Context& ctx, const char* op, const char* operand, const TensorView& view,
                   DType dtype, const Shape& shape) {
  CARAVAN_CHECK(view.defined() && view.dtype() == dtype && view.shape() == shape,
                "{}: {} is {}, expected {}{}", op, operand, view.str(), dtype_name(dtype), shape.str());
  CARAVAN_CHECK(view.is_contiguous(), "{}: {} is not contiguous", op, operand);
  CARAVAN_CHECK(view.device() == ctx.backend.device(), "{}: {} is on another device", op, operand);
}

/// The same in the context's compute dtype.
inline void expect_real(const Context& ctx, const char* op, const char* operand, const TensorView& view,
                        const Shape& shape) {
  expect(ctx, op, operand, view, ctx.dtype, shape);
}

/// In the type sums of the compute dtype have: statistics, weight gradients, moments.
inline void expect_sums(const Context& ctx, const char* op, const char* operand, const TensorView& view,
                        const Shape& shape) {
  expect(ctx, op, operand, view, accumulation_dtype(ctx.dtype), shape);
}

inline void expect_int(const Context& ctx, const char* op, const char* operand, const TensorView& view,
                       const Shape& shape) {
  expect(ctx, op, operand, view, DType::kInt32, shape);
}

/// Rank 2 and defined; returns its shape.
inline Shape matrix_shape(const char* op, const char* operand, const TensorView& view) {
  CARAVAN_CHECK(view.defined() && view.rank() == 2, "{}: {} is {}, expected a matrix", op, operand,
                view.str());
  return view.shape();
}

}  // namespace caravan::ops_detail

// The scalar types the reference ops are written for: float, double, std::complex<double>.
//
// Every op is an analytic function of its real inputs (no conjugation, no |z|), so that a complex step
// through the same text gives derivatives to rounding. Comparisons look at the real part only.
#pragma once

#include <complex>
#include <cstdint>
#include <span>
#include <variant>

#include "caravan/backend/weight_view.h"
#include "caravan/core/error.h"
#include "caravan/core/tensor_view.h"

namespace caravan::reference {

inline double real_part(float x) {
  return static_cast<double>(x);
}
inline double real_part(double x) {
  return x;
}
inline double real_part(const std::complex<double>& x) {
  return x.real();
}

/// All elements of a contiguous view; empty when it is undefined.
template <class T>
std::span<T> elements(const TensorView& view) {
  if (!view.defined()) {
    return {};
  }
  CARAVAN_CHECK(view.is_contiguous(), "{} must be contiguous", view.str());
  return {view.data<T>(), static_cast<std::size_t>(view.numel())};
}

inline const TensorView& dense_values(const WeightView& weight) {
  return std::get<DenseWeight>(weight).values;
}

/// Calls body.template operator()<T>() for the scalar type of `dtype`.
template <class Body>
void with_scalar(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body.template operator()<float>();
    case DType::kFloat64:
      return body.template operator()<double>();
    case DType::kComplex128:
      return body.template operator()<std::complex<double>>();
    default:
      fail<InternalError>("the reference backend computes in float32, float64 and complex128, not in {}",
                          dtype_name(dtype));
  }
}

}  // namespace caravan::reference

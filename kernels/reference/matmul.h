// Products of row-major matrices. They are each other's derivatives: of y = x wᵀ (nt) the input gradient is
// dx = dy w (nn) and the weight gradient dw += dyᵀ x (tn).
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

namespace detail {

/// Element (i, p) of an operand is data[i · row_stride + p · col_stride]: strides (1, rows) read a transpose.
template <class T>
struct Operand {
  const T* data;
  std::int64_t row_stride;
  std::int64_t col_stride;

  T at(std::int64_t i, std::int64_t p) const { return data[i * row_stride + p * col_stride]; }
};

/// c[i, j] (+)= Σ_p a(i, p) · b(p, j) for p < inner.
template <class T>
void product(const Operand<T>& a, const Operand<T>& b, std::int64_t inner, const TensorView& c,
             Accumulate accumulate) {
  const auto out = elements<T>(c);
  const std::int64_t rows = c.dim(0);
  const std::int64_t cols = c.dim(1);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      T sum{};
      for (std::int64_t p = 0; p < inner; ++p) {
        sum += a.at(i, p) * b.at(p, j);
      }
      T& element = out[static_cast<std::size_t>(i * cols + j)];
      element = accumulate == Accumulate::kAdd ? element + sum : sum;
    }
  }
}

}  // namespace detail

template <class T>
void matmul_nt(const MatmulNtArgs& args) {
  const std::int64_t inner = args.a.dim(1);
  detail::product<T>({elements<T>(args.a).data(), inner, 1},
                     {elements<T>(dense_values(args.b)).data(), 1, inner}, inner, args.c, args.accumulate);
}

template <class T>
void matmul_nn(const MatmulNnArgs& args) {
  const std::int64_t inner = args.a.dim(1);
  detail::product<T>({elements<T>(args.a).data(), inner, 1},
                     {elements<T>(dense_values(args.b)).data(), args.c.dim(1), 1}, inner, args.c,
                     args.accumulate);
}

template <class T>
void matmul_tn(const MatmulTnArgs& args) {
  const std::int64_t inner = args.a.dim(0);
  detail::product<T>({elements<T>(args.a).data(), 1, args.c.dim(0)},
                     {elements<T>(args.b).data(), args.c.dim(1), 1}, inner, args.c, args.accumulate);
}

}  // namespace caravan::reference

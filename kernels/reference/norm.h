// RMSNorm (Zhang and Sennrich 2019, eq. 4), with the residual addition in front of it. The derivation is
// docs/derivations/rmsnorm.md.
#pragma once

#include <cmath>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// sum = x + delta;  rstd = 1 / sqrt(mean(sum²) + eps);  y = sum · rstd · weight
template <class T>
void rmsnorm_forward(const RmsNormForwardArgs& args) {
  const auto width = static_cast<std::size_t>(args.weight.dim(0));
  const auto x = elements<T>(args.x);
  const auto delta = elements<T>(args.delta);
  const auto sum = elements<T>(args.sum);
  const auto weight = elements<T>(args.weight);
  const auto y = elements<T>(args.y);
  const auto rstd = elements<T>(args.rstd);
  for (std::size_t t = 0; t < rstd.size(); ++t) {
    const std::size_t row = t * width;
    if (args.delta.defined()) {
      for (std::size_t d = 0; d < width; ++d) {
        sum[row + d] = x[row + d] + delta[row + d];
      }
    }
    const auto normed = args.delta.defined() ? sum.subspan(row, width) : x.subspan(row, width);
    T squares{};
    for (std::size_t d = 0; d < width; ++d) {
      squares += normed[d] * normed[d];
    }
    rstd[t] =
        T{1} / std::sqrt(squares / static_cast<T>(static_cast<double>(width)) + static_cast<T>(args.eps));
    for (std::size_t d = 0; d < width; ++d) {
      y[row + d] = normed[d] * rstd[t] * weight[d];
    }
  }
}

/// With n = x · rstd:  ∂y[d]/∂x[e] = weight[d] · rstd · ([d = e] − n[d] · n[e] / D), because
/// ∂rstd/∂x[e] = −rstd³ · x[e] / D. So with s = Σ_d dy·weight·n / D:  dx += (dy · weight − n · s) · rstd.
template <class T>
void rmsnorm_backward(const RmsNormBackwardArgs& args) {
  const auto width = static_cast<std::size_t>(args.weight.dim(0));
  const auto dy = elements<T>(args.dy);
  const auto x = elements<T>(args.x);
  const auto weight = elements<T>(args.weight);
  const auto rstd = elements<T>(args.rstd);
  const auto dx = elements<T>(args.dx);
  const auto dweight = elements<T>(args.dweight);
  for (std::size_t t = 0; t < rstd.size(); ++t) {
    const std::size_t row = t * width;
    T s{};
    for (std::size_t d = 0; d < width; ++d) {
      s += dy[row + d] * weight[d] * x[row + d] * rstd[t];
    }
    s /= static_cast<T>(static_cast<double>(width));
    for (std::size_t d = 0; d < width; ++d) {
      const T n = x[row + d] * rstd[t];
      dx[row + d] += (dy[row + d] * weight[d] - n * s) * rstd[t];
      if (!dweight.empty()) {
        dweight[d] += dy[row + d] * n;
      }
    }
  }
}

}  // namespace caravan::reference

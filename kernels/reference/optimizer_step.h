// AdamW (Loshchilov and Hutter 2019, algorithm 2) in PyTorch's order of operations, the gradient norm and the
// sum of losses. The derivation is docs/derivations/adamw.md.
#pragma once

#include <cmath>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// With g = grad · gradient_factor:  param −= lr · weight_decay · param;  m += (1 − beta1)(g − m);
/// v = beta2 · v + (1 − beta2) g²;
/// param −= lr / bias_correction1 · m / (sqrt(v) / bias_correction2_sqrt + eps)
template <class T>
void adamw(const AdamwArgs& args) {
  const UpdateState& state = *args.state;
  if (state.is_skipped != 0) {
    return;
  }
  const auto param = elements<T>(args.param);
  const auto grad = elements<T>(args.grad);
  const auto m = elements<T>(args.m);
  const auto v = elements<T>(args.v);
  const T clip = static_cast<T>(state.gradient_factor);
  const T decay = static_cast<T>(args.scalars->lr * args.weight_decay);
  const T keep2 = static_cast<T>(args.beta2);
  const T mix1 = static_cast<T>(1.0 - args.beta1);
  const T mix2 = static_cast<T>(1.0 - args.beta2);
  const T step = static_cast<T>(args.scalars->lr / state.bias_correction1);
  const T root_correction = static_cast<T>(state.bias_correction2_sqrt);
  const T eps = static_cast<T>(args.eps);
  for (std::size_t i = 0; i < param.size(); ++i) {
    const T g = grad[i] * clip;
    param[i] -= decay * param[i];
    m[i] += mix1 * (g - m[i]);
    v[i] = keep2 * v[i] + mix2 * g * g;
    param[i] -= step * m[i] / (std::sqrt(v[i]) / root_correction + eps);
  }
}

/// result[0] += Σ x
template <class T>
void sum(const SumArgs& args) {
  double sum = 0.0;
  for (const T& x : elements<T>(args.x)) {
    sum += real_part(x);
  }
  *args.result.data<double>() += sum;
}

/// result[0] += Σ x²
template <class T>
void sum_squares(const SumSquaresArgs& args) {
  double sum = 0.0;
  for (const T& x : elements<T>(args.x)) {
    sum += real_part(x) * real_part(x);
  }
  *args.result.data<double>() += sum;
}

}  // namespace caravan::reference

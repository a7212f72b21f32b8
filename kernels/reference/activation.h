// SwiGLU (Shazeer 2020, eq. 6). The derivation is docs/derivations/swiglu.md.
#pragma once

#include <cmath>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// h = silu(gate) · up, silu(z) = z / (1 + exp(−z))
template <class T>
void swiglu_forward(const SwigluForwardArgs& args) {
  const auto gate = elements<T>(args.gate);
  const auto up = elements<T>(args.up);
  const auto h = elements<T>(args.h);
  for (std::size_t i = 0; i < h.size(); ++i) {
    h[i] = gate[i] / (T{1} + std::exp(-gate[i])) * up[i];
  }
}

/// With σ = 1 / (1 + exp(−gate)):  dup = dh · gate · σ,  dgate = dh · up · σ · (1 + gate · (1 − σ))
template <class T>
void swiglu_backward(const SwigluBackwardArgs& args) {
  const auto dh = elements<T>(args.dh);
  const auto gate = elements<T>(args.gate);
  const auto up = elements<T>(args.up);
  const auto dgate = elements<T>(args.dgate);
  const auto dup = elements<T>(args.dup);
  for (std::size_t i = 0; i < dh.size(); ++i) {
    const T sigmoid = T{1} / (T{1} + std::exp(-gate[i]));
    const T slope = sigmoid * (T{1} + gate[i] * (T{1} - sigmoid));
    const T through_up = dh[i] * gate[i] * sigmoid;
    dgate[i] = dh[i] * up[i] * slope;
    dup[i] = through_up;
  }
}

}  // namespace caravan::reference

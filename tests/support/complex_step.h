// Derivatives without subtraction. For f analytic and real on the real line,
//   f(x + ih) = f(x) + ih f'(x) − h² f''(x)/2 − ...,  so  f'(x) = Im f(x + ih) / h + O(h²);
// nothing cancels, hence h may be so small that the h² term is below any rounding (Squire and Trapp 1998).
#pragma once

#include <complex>
#include <functional>
#include <span>
#include <vector>

namespace caravan::test {

constexpr double kComplexStep = 1e-60;

/// ∂f/∂x[i] for every i. `f` reads x, which is real on entry and on return.
inline std::vector<double> complex_step_gradient(std::span<std::complex<double>> x,
                                                 const std::function<std::complex<double>()>& f) {
  std::vector<double> gradient;
  for (std::complex<double>& element : x) {
    const std::complex<double> kept = element;
    element += std::complex<double>(0.0, kComplexStep);
    gradient.push_back(f().imag() / kComplexStep);
    element = kept;
  }
  return gradient;
}

}  // namespace caravan::test

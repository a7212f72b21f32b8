// Ops with an exponential per element: SwiGLU and the softmax rows of the loss.
#include "kernels/cpu/simd/ops.h"
#include "kernels/cpu/simd/vector.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

/// Calls body(i, n) for vectors of n elements from i, n = all lanes but at the end. The last elements go
/// through the same vector code, so that a value does not depend on where a range was cut.
template <class T, class Body>
inline void for_vectors(std::int64_t count, const Body& body) {
  std::int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    body(i, kLanes<T>);
  }
  if (i < count) {
    body(i, count - i);
  }
}

}  // namespace

template <class T>
void swiglu_forward(const T* gate, const T* up, T* h, std::int64_t count) {
  for_vectors<T>(count, [=](std::int64_t i, std::int64_t n) {
    const Vec<T> z = load_up_to(gate + i, n);
    store_up_to<T>(h + i, z / (T{1} + exp_or_tiny(-z)) * load_up_to(up + i, n), n);
  });
}

template <class T>
void swiglu_backward(const SwigluBackwardElements<T>& args) {
  const SwigluBackwardElements<T> a = args;
  for_vectors<T>(a.count, [&a](std::int64_t i, std::int64_t n) {
    const Vec<T> z = load_up_to(a.gate + i, n);
    const Vec<T> dh = load_up_to(a.dh + i, n);
    const Vec<T> up = load_up_to(a.up + i, n);
    const Vec<T> sigmoid = T{1} / (T{1} + exp_or_tiny(-z));
    const Vec<T> slope = sigmoid * (T{1} + z * (T{1} - sigmoid));
    store_up_to<T>(a.dgate + i, dh * up * slope, n);
    store_up_to<T>(a.dup + i, dh * z * sigmoid, n);
  });
}

/// The sum is taken in vectors over 1024 columns and in double over those parts: a vocabulary of 128 k
/// float32 terms added lane by lane would lose two digits.
template <class T>
void cross_entropy_stats(const T* logits, std::int64_t width, T* row_max, T* row_sum) {
  constexpr std::int64_t kPart = 1024;
  using Integer = typename VectorOf<T>::Integer;
  const T lowest = -static_cast<T>(__builtin_inf());
  Vec<T> largest = splat(lowest);
  for_vectors<T>(width, [&](std::int64_t i, std::int64_t n) {
    const Vec<T> value = load_up_to(logits + i, n);
    const Vec<T> present = lane_numbers<T>(0) < static_cast<Integer>(n) ? value : splat(lowest);
    largest = larger<T>(present, largest);
  });
  const T maximum = max_of<T>(largest);
  double total = 0.0;
  for (std::int64_t begin = 0; begin < width; begin += kPart) {
    const T* part = logits + begin;
    Vec<T> sum{};
    for_vectors<T>(width - begin < kPart ? width - begin : kPart, [&](std::int64_t i, std::int64_t n) {
      const Vec<T> value = exp_of(load_up_to(part + i, n) - maximum);
      sum += (n == kLanes<T>) ? value : load_first(reinterpret_cast<const T*>(&value), n);
    });
    total += static_cast<double>(sum_of<T>(sum));
  }
  *row_max = maximum;
  *row_sum = static_cast<T>(total);
}

template <class T>
void softmax_gradient(T* logits, std::int64_t width, T lse, T factor) {
  for_vectors<T>(width, [=](std::int64_t i, std::int64_t n) {
    store_up_to<T>(logits + i, exp_of(load_up_to(logits + i, n) - lse) * factor, n);
  });
}

template void swiglu_forward(const float*, const float*, float*, std::int64_t);
template void swiglu_forward(const double*, const double*, double*, std::int64_t);
template void swiglu_backward(const SwigluBackwardElements<float>&);
template void swiglu_backward(const SwigluBackwardElements<double>&);
template void cross_entropy_stats(const float*, std::int64_t, float*, float*);
template void cross_entropy_stats(const double*, std::int64_t, double*, double*);
template void softmax_gradient(float*, std::int64_t, float, float);
template void softmax_gradient(double*, std::int64_t, double, double);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

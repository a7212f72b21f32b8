#include "half_values.h"

#include <algorithm>

#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"

namespace caravan::detail {
namespace {

constexpr std::int64_t kGrain = 16384;

template <class T>
void widen_all(const TensorView& half, float* wide) {
  const T* from = half.data<T>();
  parallel_for(half.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::transform(from + begin, from + end, wide + begin, [](T value) { return to_float(value); });
  });
}

}  // namespace

void widen(const TensorView& half, float* wide) {
  CARAVAN_CHECK(is_half(half.dtype()), "widening {}", half.str());
  if (half.dtype() == DType::kBFloat16) {
    widen_all<BFloat16>(half, wide);
  } else {
    widen_all<Float16>(half, wide);
  }
}

void round_to_half(const float* wide, const TensorView& half) {
  CARAVAN_CHECK(is_half(half.dtype()), "rounding to {}", half.str());
  const bool is_brain = half.dtype() == DType::kBFloat16;
  parallel_for(half.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    if (is_brain) {
      std::transform(wide + begin, wide + end, half.data<BFloat16>() + begin, to_bfloat16);
    } else {
      std::transform(wide + begin, wide + end, half.data<Float16>() + begin, to_float16);
    }
  });
}

}  // namespace caravan::detail

#include "kernels/cpu/simd/ops.h"

#define CARAVAN_NAME_OF(level) #level
#define CARAVAN_LEVEL_NAME(level) CARAVAN_NAME_OF(level)

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

template <class T>
constexpr SimdOps<T> ops() {
  return {.rmsnorm_forward = rmsnorm_forward<T>,
          .rmsnorm_backward = rmsnorm_backward<T>,
          .rope = rope<T>,
          .swiglu_forward = swiglu_forward<T>,
          .swiglu_backward = swiglu_backward<T>,
          .cross_entropy_stats = cross_entropy_stats<T>,
          .softmax_gradient = softmax_gradient<T>,
          .add = add<T>,
          .scale = scale<T>,
          .dropout = dropout<T>,
          .adamw = adamw<T>,
          .sum_squares = sum_squares<T>,
          .row_dots = row_dots<T>,
          .pack_transposed = pack_transposed<T>,
          .attention_forward = attention_forward<T>,
          .attention_backward = attention_backward<T>};
}

constexpr SimdTable kTable = {CARAVAN_LEVEL_NAME(CARAVAN_SIMD_LEVEL), ops<float>(), ops<double>()};

}  // namespace

const SimdTable& table() {
  return kTable;
}

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

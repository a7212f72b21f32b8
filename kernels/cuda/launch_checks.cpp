#include "kernels/cuda/launch_checks.h"

#include "caravan/core/error.h"

namespace caravan::cuda {

void check_float32(const TensorView& view) {
  CARAVAN_CHECK(
      view.dtype() == DType::kFloat32,
      "CUDA kernels store float32, bfloat16 or float16, and gradients of weights as the weights or in "
      "float32, not {}",
      view.str());
}

void check_word(const TensorView& view) {
  CARAVAN_CHECK(dtype_bytes(view.dtype()) == 4, "transpose of {}: elements have 2 or 4 bytes", view.str());
}

void check_workspace(const char* op, std::int64_t bytes, std::int64_t needed) {
  CARAVAN_CHECK(bytes >= needed, "{}: {} bytes of scratch memory, {} needed", op, bytes, needed);
}

void check_rounding(const TensorView& param, bool has_master, bool is_stochastic) {
  CARAVAN_CHECK(!has_master || !is_stochastic, "{}: stochastic rounding is for weights without a master copy",
                param.str());
  CARAVAN_CHECK(!is_stochastic || param.dtype() != DType::kFloat16, "{}: stochastic rounding is to bfloat16",
                param.str());
}

void check_contiguous(const char* op, std::initializer_list<const TensorView*> views) {
  for (const TensorView* view : views) {
    CARAVAN_CHECK(view->is_contiguous(), "{}: {} has gaps between its rows; copy it to a contiguous tensor",
                  op, view->str());
  }
}

void check_head_dim(std::int64_t head_dim, const char* supported, bool is_supported) {
  CARAVAN_CHECK(is_supported, "CUDA attention with heads of {}; there is {}", head_dim, supported);
}

}  // namespace caravan::cuda

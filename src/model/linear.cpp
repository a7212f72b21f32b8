#include "caravan/model/linear.h"

#include "caravan/ops/linear_algebra.h"

namespace caravan {

std::string_view Linear::segment_name() const {
  const std::string_view name = weight_->name();
  return name.substr(0, name.rfind('.', name.rfind('.') - 1));
}

void Linear::forward(Context& ctx, const TensorView& x, const TensorView& y) const {
  matmul_nt(ctx, {.a = x, .b = weight_->weight(), .c = y});
  ctx.observe(weight_->name(), y);
}

void Linear::backward_input(Context& ctx, const TensorView& dy, const TensorView& dx,
                            Accumulate accumulate) const {
  matmul_nn(ctx, {.a = dy, .b = weight_->weight(), .c = dx, .accumulate = accumulate});
}

void Linear::backward_weight(Context& ctx, const TensorView& x, const TensorView& dy) const {
  if (weight_->is_trainable()) {
    matmul_tn(ctx, {.a = dy, .b = x, .c = weight_->grad()});
  }
}

}  // namespace caravan

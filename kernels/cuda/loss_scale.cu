// Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): one thread decides for the whole step, on the
// device, so that no host waits for the norm.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

/// As reference/loss_scale.h.
__global__ void update_loss_scale_kernel(UpdateLossScaleArgs args) {
  if (threadIdx.x != 0) {
    return;
  }
  LossScale state = *args.state;
  const double norm = sqrt(*args.sum_squares) / state.scale;
  const bool is_finite = norm - norm == 0.0;  // infinity and NaN give NaN
  if (is_finite) {
    ++state.updates;
    state.is_skipped = 0;
    state.gradient_factor = (norm > args.max_norm ? args.max_norm / norm : 1.0) / state.scale;
    const auto t = static_cast<double>(state.updates);
    state.bias_correction1 = 1.0 - pow(args.beta1, t);
    state.bias_correction2_sqrt = sqrt(1.0 - pow(args.beta2, t));
    if (++state.good_steps == args.policy.growth_interval) {
      state.good_steps = 0;
      state.scale = fmin(state.scale * args.policy.growth, args.policy.most);
    }
  } else {
    state.is_skipped = 1;
    ++state.skipped;
    state.good_steps = 0;
    state.scale = fmax(state.scale * args.policy.backoff, args.policy.least);
  }
  *args.state = state;
}

}  // namespace

void update_loss_scale(const UpdateLossScaleArgs& args, StreamHandle stream) {
  launch("update_loss_scale", update_loss_scale_kernel, {.grid = 1, .block = kWarpSize, .stream = stream},
         args);
}

}  // namespace caravan::cuda

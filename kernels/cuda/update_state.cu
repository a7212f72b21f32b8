// The decision on a step's update: one thread decides for the whole step, on the device, so that no host
// waits for the norm.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

__device__ bool is_finite(double x) {
  return x - x == 0.0;  // infinity and NaN give NaN
}

/// As reference/update_state.h.
__global__ void prepare_update_kernel(PrepareUpdateArgs args) {
  if (threadIdx.x != 0) {
    return;
  }
  UpdateState state = *args.state;
  const double scale = state.loss_scale;
  state.grad_norm = sqrt(state.sum_squares) / scale;
  if (is_finite(state.grad_norm) && is_finite(state.loss_sum)) {
    ++state.updates;
    state.is_skipped = 0;
    state.gradient_factor = (state.grad_norm > args.max_norm ? args.max_norm / state.grad_norm : 1.0) / scale;
    const auto t = static_cast<double>(state.updates);
    state.bias_correction1 = 1.0 - pow(args.beta1, t);
    state.bias_correction2_sqrt = sqrt(1.0 - pow(args.beta2, t));
    if (++state.good_steps >= args.policy.growth_interval) {
      state.good_steps = 0;
      state.loss_scale = fmin(scale * args.policy.growth, args.policy.most);
    }
  } else {
    state.is_skipped = 1;
    ++state.skipped;
    state.good_steps = 0;
    state.loss_scale = fmax(scale * args.policy.backoff, args.policy.least);
  }
  *args.state = state;
}

}  // namespace

void prepare_update(const PrepareUpdateArgs& args, StreamHandle stream) {
  launch("prepare_update", prepare_update_kernel, {.grid = 1, .block = kWarpSize, .stream = stream}, args);
}

}  // namespace caravan::cuda

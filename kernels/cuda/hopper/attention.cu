// Which problems the Hopper attention kernels take, and the backward pass from its parts.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/hopper/launchers.h"
#include "kernels/cuda/launch_checks.h"

namespace caravan::cuda::hopper {
namespace {

bool takes_shape(const AttentionShape& s) {
  return (s.head_dim == 64 || s.head_dim == 128) && s.scale > 0.0 && s.batch > 0 && s.query_len > 0 &&
         s.key_len > 0;
}

template <class... Views>
bool takes_views(const Views&... views) {
  return ((views.dtype() == DType::kBFloat16 &&
           reinterpret_cast<std::uintptr_t>(views.template data<BFloat16>()) % 16 == 0) &&
          ...);
}

}  // namespace

bool takes(const AttentionForwardArgs& args) {
  return takes_shape(args.shape) && takes_views(args.q, args.k, args.v, args.o);
}

bool takes(const AttentionBackwardArgs& args) {
  return takes_shape(args.shape) &&
         takes_views(args.q, args.k, args.v, args.o, args.d_o, args.dq, args.dk, args.dv);
}

void attention_backward(const AttentionBackwardArgs& args, const Workspace& workspace, StreamHandle stream) {
  check_workspace("attention_backward", workspace.bytes, attention_backward_workspace_bytes(args.shape));
  auto* delta = static_cast<float*>(workspace.data);
  attention_delta(args, delta, stream);
  attention_dq(args, delta, stream);
  attention_dkdv(args, delta, stream);
}

}  // namespace caravan::cuda::hopper

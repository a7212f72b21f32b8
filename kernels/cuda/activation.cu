// SwiGLU (Shazeer 2020, eq. 6), one pass over memory each way. The derivation is docs/derivations/swiglu.md.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

__device__ float sigmoid(float z) {
  return 1.0F / (1.0F + __expf(-z));
}

template <class T>
struct SwigluForward {
  const T* gate;
  const T* up;
  T* h;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    const Pack<T, N> g = load_pack<N>(gate + at);
    const Pack<T, N> u = load_pack<N>(up + at);
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float z = load_float(g[i]);
      result[i] = store_float<T>(z * sigmoid(z) * load_float(u[i]));
    }
    store_pack<N>(h + at, result);
  }
};

/// dup = dh · gate · σ,  dgate = dh · up · σ · (1 + gate · (1 − σ)); each pack is read before it is written,
/// so dgate may be gate and dup may be up.
template <class T>
struct SwigluBackward {
  const T* dh;
  const T* gate;
  const T* up;
  T* dgate;
  T* dup;

  template <int N>
  __device__ void apply(std::int64_t at) const {
    const Pack<T, N> d = load_pack<N>(dh + at);
    const Pack<T, N> g = load_pack<N>(gate + at);
    const Pack<T, N> u = load_pack<N>(up + at);
    Pack<T, N> dg;
    Pack<T, N> du;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float z = load_float(g[i]);
      const float s = sigmoid(z);
      const float dz = load_float(d[i]);
      dg[i] = store_float<T>(dz * load_float(u[i]) * s * (1.0F + z * (1.0F - s)));
      du[i] = store_float<T>(dz * z * s);
    }
    store_pack<N>(dgate + at, dg);
    store_pack<N>(dup + at, du);
  }
};

}  // namespace

void swiglu_forward(const SwigluForwardArgs& args, StreamHandle stream) {
  with_storage(args.h, [&]<class T>() {
    const SwigluForward<T> op{args.gate.data<T>(), args.up.data<T>(), args.h.data<T>()};
    launch_elementwise<kPackSize<T>>("swiglu_forward", op, args.h.numel(), is_aligned(op.gate, op.up, op.h),
                                     stream);
  });
}

void swiglu_backward(const SwigluBackwardArgs& args, StreamHandle stream) {
  with_storage(args.dh, [&]<class T>() {
    const SwigluBackward<T> op{args.dh.data<T>(), args.gate.data<T>(), args.up.data<T>(),
                               args.dgate.data<T>(), args.dup.data<T>()};
    launch_elementwise<kPackSize<T>>("swiglu_backward", op, args.dh.numel(),
                                     is_aligned(op.dh, op.gate, op.up, op.dgate, op.dup), stream);
  });
}

}  // namespace caravan::cuda

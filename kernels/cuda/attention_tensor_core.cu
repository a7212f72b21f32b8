// Launchers of attention on tensor cores.
#include "kernels/cuda/attention_tensor_core.h"

#include <algorithm>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/attention_tensor_core_backward.h"
#include "kernels/cuda/attention_tensor_core_dkdv.h"
#include "kernels/cuda/attention_tensor_core_forward.h"

namespace caravan::cuda {
namespace {

/// Calls body.template operator()<head_dim>().
template <class Body>
void with_head_dim(std::int64_t head_dim, const Body& body) {
  if (head_dim == 64) {
    body.template operator()<64>();
  } else {
    body.template operator()<128>();
  }
}

template <class C>
LaunchShape blocks_of(std::int64_t length, std::int64_t tile, std::int64_t heads, std::int64_t batch,
                      StreamHandle stream, std::size_t shared_bytes = C::kSharedBytes) {
  return {.grid = {static_cast<unsigned>((length + tile - 1) / tile), static_cast<unsigned>(heads),
                   static_cast<unsigned>(batch)},
          .block = C::kThreads,
          .shared_bytes = shared_bytes,
          .stream = stream};
}

bool qualifies(const AttentionShape& shape, std::initializer_list<const TensorView*> views) {
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.scale > 0.0 &&
         std::all_of(views.begin(), views.end(), [](const TensorView* view) {
           return view->dtype() == DType::kBFloat16 && is_aligned(view->raw());
         });
}

void launch_forward(const AttentionForwardArgs& args, StreamHandle stream) {
  with_head_dim(args.shape.head_dim, [&]<int kHeadDim>() {
    using Tiles = ForwardTiles<kHeadDim>;
    launch(
        "attention_forward_tensor_core", attention_forward_tensor_core_kernel<Tiles>,
        blocks_of<Tiles>(args.shape.query_len, Tiles::kQueries, args.shape.n_heads, args.shape.batch, stream),
        attention_problem(args.shape, args.mask, args.lse), args.q.data<BFloat16>(), args.k.data<BFloat16>(),
        args.v.data<BFloat16>(), args.o.data<BFloat16>(), args.lse.data<float>());
  });
}

void launch_backward(const AttentionBackwardArgs& args, const Workspace& workspace, StreamHandle stream) {
  const AttentionShape& shape = args.shape;
  const BackwardScratch scratch = backward_scratch(shape, workspace);
  const AttentionProblem problem = attention_problem(shape, args.mask, args.lse);
  const BackwardInputs inputs{.q = args.q.data<BFloat16>(),
                              .k = args.k.data<BFloat16>(),
                              .v = args.v.data<BFloat16>(),
                              .d_o = args.d_o.data<BFloat16>()};
  with_head_dim(shape.head_dim, [&]<int kHeadDim>() {
    using ForQueries = QueryGradientTiles<kHeadDim>;
    using ForKeys = KeyGradientTiles<kHeadDim>;
    launch("attention_prepare", attention_prepare_kernel<ForKeys>,
           blocks_of<ForKeys>(scratch.padded_len, ForKeys::kQueries, shape.n_heads, shape.batch, stream, 0),
           problem, args.o.data<BFloat16>(), inputs.d_o, args.lse.data<float>(), scratch);
    launch("attention_dq_tensor_core", attention_dq_tensor_core_kernel<ForQueries>,
           blocks_of<ForQueries>(shape.query_len, ForQueries::kQueries, shape.n_heads, shape.batch, stream),
           problem, inputs, scratch, args.dq.data<BFloat16>());
    launch("attention_dkdv_tensor_core", attention_dkdv_tensor_core_kernel<ForKeys>,
           blocks_of<ForKeys>(shape.key_len, ForKeys::kKeys, shape.n_kv_heads, shape.batch, stream), problem,
           inputs, scratch, args.dk.data<BFloat16>(), args.dv.data<BFloat16>());
  });
}

}  // namespace

bool runs_on_tensor_cores(const AttentionForwardArgs& args) {
  return qualifies(args.shape, {&args.q, &args.k, &args.v, &args.o});
}

bool runs_on_tensor_cores(const AttentionBackwardArgs& args) {
  const int shared_bytes =
      args.shape.head_dim == 64
          ? std::max(QueryGradientTiles<64>::kSharedBytes, KeyGradientTiles<64>::kSharedBytes)
          : std::max(QueryGradientTiles<128>::kSharedBytes, KeyGradientTiles<128>::kSharedBytes);
  return shared_bytes <= shared_bytes_of_block() &&
         qualifies(args.shape, {&args.q, &args.k, &args.v, &args.o, &args.d_o, &args.dq, &args.dk, &args.dv});
}

void attention_forward_tensor_core(const AttentionForwardArgs& args, StreamHandle stream) {
  for_each_part(
      args, [&](const AttentionForwardArgs& part, std::int64_t /*first*/) { launch_forward(part, stream); });
}

std::int64_t attention_backward_tensor_core_workspace_bytes(const AttentionShape& shape) {
  return BackwardLayout(shape).bytes();
}

void attention_backward_tensor_core(const AttentionBackwardArgs& args, const Workspace& workspace,
                                    StreamHandle stream) {
  // One part after the other: the workspace serves all.
  for_each_part(args, [&](const AttentionBackwardArgs& part, std::int64_t /*first*/) {
    launch_backward(part, workspace, stream);
  });
}

}  // namespace caravan::cuda

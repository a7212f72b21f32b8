#include "caravan/backend/counting_backend.h"

namespace caravan {
namespace {

/// Visible (query, key) pairs of all heads when the whole causal square is computed; half of it counts.
std::int64_t attention_pairs(const AttentionShape& shape) {
  return shape.batch * shape.n_heads * shape.query_len * shape.key_len / 2;
}

}  // namespace

void CountingBackend::count_bytes(std::initializer_list<const TensorView*> views) {
  ++work_.ops;
  for (const TensorView* view : views) {
    if (view->defined()) {
      work_.other_bytes += view->bytes();
    }
  }
}

void CountingBackend::matmul_nt(const MatmulNtArgs& args, Stream&) {
  ++work_.ops;
  work_.matmul_flops += 2 * args.c.numel() * args.a.dim(1);
}
void CountingBackend::matmul_nn(const MatmulNnArgs& args, Stream&) {
  ++work_.ops;
  work_.matmul_flops += 2 * args.c.numel() * args.a.dim(1);
}
void CountingBackend::matmul_tn(const MatmulTnArgs& args, Stream&) {
  ++work_.ops;
  work_.matmul_flops += 2 * args.c.numel() * args.a.dim(0);
}
void CountingBackend::embedding_forward(const EmbeddingForwardArgs& args, Stream&) {
  count_bytes({&args.y, &args.y});
}
void CountingBackend::embedding_backward(const EmbeddingBackwardArgs& args, Stream&) {
  count_bytes({&args.dy, &args.dy, &args.dy});
}
void CountingBackend::rmsnorm_forward(const RmsNormForwardArgs& args, Stream&) {
  count_bytes({&args.x, &args.delta, &args.sum, &args.y});
}
void CountingBackend::rmsnorm_backward(const RmsNormBackwardArgs& args, Stream&) {
  count_bytes({&args.dy, &args.x, &args.dx, &args.dx});
}
void CountingBackend::rope(const RopeArgs& args, Stream&) {
  count_bytes({&args.x, &args.x});
}
void CountingBackend::attention_forward(const AttentionForwardArgs& args, Stream&) {
  ++work_.ops;
  work_.attention_flops += 4 * attention_pairs(args.shape) * args.shape.head_dim;
}
void CountingBackend::attention_backward(const AttentionBackwardArgs& args, Stream&) {
  ++work_.ops;
  if (attention_pairs(args.shape) >= attention_pairs(work_.largest_attention)) {
    work_.largest_attention = args.shape;
  }
  work_.attention_flops += 10 * attention_pairs(args.shape) * args.shape.head_dim;
}
void CountingBackend::attention_merge(const AttentionMergeArgs& args, Stream&) {
  count_bytes({&args.o, &args.o, &args.o_part, &args.lse, &args.lse, &args.lse_part});
}
void CountingBackend::swiglu_forward(const SwigluForwardArgs& args, Stream&) {
  count_bytes({&args.gate, &args.up, &args.h});
}
void CountingBackend::swiglu_backward(const SwigluBackwardArgs& args, Stream&) {
  count_bytes({&args.dh, &args.gate, &args.up, &args.dgate, &args.dup});
}
void CountingBackend::cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream&) {
  count_bytes({&args.logits});
}
void CountingBackend::cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream&) {
  count_bytes({&args.common_max, &args.row_max, &args.row_max, &args.row_sum, &args.row_sum});
}
void CountingBackend::cross_entropy_loss(const CrossEntropyLossArgs& args, Stream&) {
  count_bytes({&args.losses});
}
void CountingBackend::cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream&) {
  count_bytes({&args.logits, &args.logits});
}
void CountingBackend::cross_entropy(const CrossEntropyArgs& args, Stream&) {
  // The second pass over a row, for its gradient, finds it in a cache.
  if (args.logits_after == LogitsAfter::kGradient) {
    count_bytes({&args.logits, &args.logits});
  } else {
    count_bytes({&args.logits});
  }
}
void CountingBackend::add(const AddArgs& args, Stream&) {
  count_bytes({&args.x, &args.z, &args.y});
}
void CountingBackend::scale(const ScaleArgs& args, Stream&) {
  count_bytes({&args.x, &args.x});
}
void CountingBackend::zero(const ZeroArgs& args, Stream&) {
  count_bytes({&args.x});
}
void CountingBackend::dropout(const DropoutArgs& args, Stream&) {
  count_bytes({&args.x, &args.y});
}
void CountingBackend::copy(const CopyArgs& args, Stream&) {
  count_bytes({&args.from, &args.to});
}
void CountingBackend::sum(const SumArgs& args, Stream&) {
  count_bytes({&args.x});
}
void CountingBackend::sum_squares(const SumSquaresArgs& args, Stream&) {
  count_bytes({&args.x});
}
void CountingBackend::prepare_update(const PrepareUpdateArgs&, Stream&) {
  ++work_.ops;
}
void CountingBackend::adamw(const AdamwArgs& args, Stream&) {
  count_bytes({&args.param, &args.param, &args.grad, &args.m, &args.m, &args.v, &args.v});
}
void CountingBackend::random_normal(const RandomNormalArgs& args, Stream&) {
  count_bytes({&args.y});
}

}  // namespace caravan

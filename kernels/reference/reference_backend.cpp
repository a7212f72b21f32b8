#include "kernels/reference/reference_backend.h"

#include "kernels/reference/activation.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/dropout.h"
#include "kernels/reference/elementwise.h"
#include "kernels/reference/embedding.h"
#include "kernels/reference/loss.h"
#include "kernels/reference/matmul.h"
#include "kernels/reference/norm.h"
#include "kernels/reference/optimizer_step.h"
#include "kernels/reference/rope.h"
#include "kernels/reference/update_state.h"

namespace caravan {

using reference::with_scalar;

bool ReferenceBackend::supports(DType dtype) const {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kComplex128;
}

void ReferenceBackend::matmul_nt(const MatmulNtArgs& args, Stream&) {
  with_scalar(args.c.dtype(), [&]<class T>() { reference::matmul_nt<T>(args); });
}
void ReferenceBackend::matmul_nn(const MatmulNnArgs& args, Stream&) {
  with_scalar(args.c.dtype(), [&]<class T>() { reference::matmul_nn<T>(args); });
}
void ReferenceBackend::matmul_tn(const MatmulTnArgs& args, Stream&) {
  with_scalar(args.c.dtype(), [&]<class T>() { reference::matmul_tn<T>(args); });
}
void ReferenceBackend::embedding_forward(const EmbeddingForwardArgs& args, Stream&) {
  with_scalar(args.y.dtype(), [&]<class T>() { reference::embedding_forward<T>(args); });
}
void ReferenceBackend::embedding_backward(const EmbeddingBackwardArgs& args, Stream&) {
  with_scalar(args.dweight.dtype(), [&]<class T>() { reference::embedding_backward<T>(args); });
}
void ReferenceBackend::rmsnorm_forward(const RmsNormForwardArgs& args, Stream&) {
  with_scalar(args.y.dtype(), [&]<class T>() { reference::rmsnorm_forward<T>(args); });
}
void ReferenceBackend::rmsnorm_backward(const RmsNormBackwardArgs& args, Stream&) {
  with_scalar(args.dx.dtype(), [&]<class T>() { reference::rmsnorm_backward<T>(args); });
}
void ReferenceBackend::rope(const RopeArgs& args, Stream&) {
  with_scalar(args.x.dtype(), [&]<class T>() { reference::rope<T>(args); });
}
void ReferenceBackend::attention_forward(const AttentionForwardArgs& args, Stream&) {
  with_scalar(args.o.dtype(), [&]<class T>() { reference::attention_forward<T>(args); });
}
void ReferenceBackend::attention_backward(const AttentionBackwardArgs& args, Stream&) {
  with_scalar(args.dq.dtype(), [&]<class T>() { reference::attention_backward<T>(args); });
}
void ReferenceBackend::attention_merge(const AttentionMergeArgs& args, Stream&) {
  with_scalar(args.o.dtype(), [&]<class T>() { reference::attention_merge<T>(args, 0, args.o.dim(0)); });
}
void ReferenceBackend::swiglu_forward(const SwigluForwardArgs& args, Stream&) {
  with_scalar(args.h.dtype(), [&]<class T>() { reference::swiglu_forward<T>(args); });
}
void ReferenceBackend::swiglu_backward(const SwigluBackwardArgs& args, Stream&) {
  with_scalar(args.dgate.dtype(), [&]<class T>() { reference::swiglu_backward<T>(args); });
}
void ReferenceBackend::cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream&) {
  with_scalar(args.logits.dtype(), [&]<class T>() { reference::cross_entropy_stats<T>(args); });
}
void ReferenceBackend::cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream&) {
  with_scalar(args.row_sum.dtype(), [&]<class T>() { reference::cross_entropy_rescale<T>(args); });
}
void ReferenceBackend::cross_entropy_loss(const CrossEntropyLossArgs& args, Stream&) {
  with_scalar(args.losses.dtype(), [&]<class T>() { reference::cross_entropy_loss<T>(args); });
}
void ReferenceBackend::cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream&) {
  with_scalar(args.logits.dtype(), [&]<class T>() { reference::cross_entropy_backward<T>(args); });
}
void ReferenceBackend::cross_entropy(const CrossEntropyArgs& args, Stream&) {
  with_scalar(args.logits.dtype(), [&]<class T>() { reference::cross_entropy<T>(args); });
}
void ReferenceBackend::add(const AddArgs& args, Stream&) {
  with_scalar(args.y.dtype(), [&]<class T>() { reference::add<T>(args); });
}
void ReferenceBackend::scale(const ScaleArgs& args, Stream&) {
  with_scalar(args.x.dtype(), [&]<class T>() { reference::scale<T>(args); });
}
void ReferenceBackend::zero(const ZeroArgs& args, Stream&) {
  reference::zero(args);
}
void ReferenceBackend::dropout(const DropoutArgs& args, Stream&) {
  with_scalar(args.y.dtype(), [&]<class T>() { reference::dropout<T>(args); });
}
void ReferenceBackend::copy(const CopyArgs& args, Stream&) {
  reference::copy(args);
}
void ReferenceBackend::sum(const SumArgs& args, Stream&) {
  with_scalar(args.x.dtype(), [&]<class T>() { reference::sum<T>(args); });
}
void ReferenceBackend::sum_squares(const SumSquaresArgs& args, Stream&) {
  with_scalar(args.x.dtype(), [&]<class T>() { reference::sum_squares<T>(args); });
}
void ReferenceBackend::prepare_update(const PrepareUpdateArgs& args, Stream&) {
  reference::prepare_update(args);
}
void ReferenceBackend::adamw(const AdamwArgs& args, Stream&) {
  with_scalar(args.param.dtype(), [&]<class T>() { reference::adamw<T>(args); });
}
void ReferenceBackend::random_normal(const RandomNormalArgs& args, Stream&) {
  with_scalar(args.y.dtype(), [&]<class T>() { reference::random_normal<T>(args); });
}

}  // namespace caravan

#include "kernels/cudnn/attention.h"

#include <limits>

namespace caravan::cudnn {
namespace {

using Tensor = Graph::Tensor;

/// Sizes and strides of tensors as cuDNN names them: [batch, heads, tokens, columns].
struct Geometry {
  std::int64_t b, h, g, s, e;

  explicit Geometry(const AttentionShape& shape)
      : b(shape.batch), h(shape.n_heads), g(shape.n_kv_heads), s(shape.query_len), e(shape.head_dim) {}

  Sizes queries() const { return {b, h, s, e}; }
  Sizes keys() const { return {b, g, s, e}; }
  Sizes keys_transposed() const { return {b, g, e, s}; }
  Sizes rows() const { return {b, h, s, 1}; }
  Sizes scores() const { return {b, h, s, s}; }
  Sizes query_strides() const { return {s * h * e, e, h * e, 1}; }
  Sizes key_strides() const { return {s * g * e, e, g * e, 1}; }
  Sizes key_strides_transposed() const { return {s * g * e, e, 1, g * e}; }
  Sizes lse_strides() const { return {s, b * s, 1, 1}; }
};

/// scores where the key is not behind the query, else −inf.
Tensor causal(Graph& graph, const Tensor& scores) {
  const Tensor query = graph.index(scores, 2);
  const Tensor key = graph.index(scores, 3);
  const Tensor sees =
      graph.pointwise(Pointwise::kGreaterOrEqual, {query, key}, Type::kBoolean, Type::kBoolean);
  const Tensor hidden = graph.number(-std::numeric_limits<float>::infinity());
  return graph.pointwise(Pointwise::kSelect, {scores, hidden, sees});
}

Type stored_type(DType dtype) {
  return dtype == DType::kFloat16 ? Type::kHalf : Type::kBFloat16;
}

constexpr std::int64_t rounded_up(std::int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

}  // namespace

bool takes_head_dim(std::int64_t head_dim) {
  return head_dim <= 128 && head_dim % 8 == 0;
}

bool takes(const AttentionShape& shape, MaskKind mask, DType dtype) {
  return mask == MaskKind::kCausal && shape.query_len == shape.key_len &&
         (dtype == DType::kBFloat16 || dtype == DType::kFloat16) && takes_head_dim(shape.head_dim) &&
         shape.batch > 0 && shape.query_len > 0;
}

ForwardPlan::ForwardPlan(const std::shared_ptr<const Library>& library, Handle handle,
                         const AttentionShape& shape, DType dtype)
    : handle_(handle), graph_(library) {
  const Geometry x(shape);
  const Type stored = stored_type(dtype);
  Graph& graph = graph_;
  q_ = graph.stored(x.queries(), x.query_strides(), stored);
  k_ = graph.stored(x.keys_transposed(), x.key_strides_transposed(), stored);
  v_ = graph.stored(x.keys(), x.key_strides(), stored);
  o_ = graph.stored(x.queries(), x.query_strides(), stored);
  lse_ = graph.stored(x.rows(), x.lse_strides(), Type::kFloat);
  const Tensor products = graph.matmul(q_, k_);
  const Tensor scaled =
      graph.pointwise(Pointwise::kMul, {products, graph.number(static_cast<float>(shape.scale))});
  const Tensor scores = causal(graph, scaled);
  const Tensor maximum = graph.reduce(Reduction::kMax, scores, x.rows());
  const Tensor exponentials =
      graph.pointwise(Pointwise::kExp, {graph.pointwise(Pointwise::kSub, {scores, maximum})});
  const Tensor sum = graph.reduce(Reduction::kAdd, exponentials, x.rows());
  graph.pointwise_into(Pointwise::kAdd, {maximum, graph.pointwise(Pointwise::kLog, {sum})}, lse_);
  const Tensor weights = graph.pointwise(Pointwise::kDiv, {exponentials, sum}, stored);
  graph.matmul_into(weights, v_, o_);
  graph.build(handle);
}

BackwardPlan::BackwardPlan(const std::shared_ptr<const Library>& library, Handle handle,
                           const AttentionShape& shape, DType dtype)
    : handle_(handle),
      delta_bytes_(rounded_up(shape.batch * shape.n_heads * shape.query_len *
                              static_cast<std::int64_t>(sizeof(float)))),
      graph_(library) {
  const Geometry x(shape);
  const Type stored = stored_type(dtype);
  Graph& graph = graph_;
  const auto query_tensor = [&] { return graph.stored(x.queries(), x.query_strides(), stored); };
  const auto key_tensor = [&] { return graph.stored(x.keys(), x.key_strides(), stored); };
  const auto transposed_tensor = [&] {
    return graph.stored(x.keys_transposed(), x.key_strides_transposed(), stored);
  };
  q_ = query_tensor();
  k_ = transposed_tensor();
  v_ = transposed_tensor();
  o_ = query_tensor();
  lse_ = graph.stored(x.rows(), x.lse_strides(), Type::kFloat);
  d_o_ = query_tensor();
  dq_ = query_tensor();
  dk_ = key_tensor();
  dv_ = key_tensor();
  delta_ = graph.stored(x.rows(), packed(x.rows()), Type::kFloat);
  const Tensor scale = graph.number(static_cast<float>(shape.scale));

  // delta = Σ_e do · o; the factor stands for dropout's, and cuDNN looks for it.
  const Tensor sums = graph.reduce(Reduction::kAdd, graph.pointwise(Pointwise::kMul, {d_o_, o_}), x.rows());
  graph.pointwise_into(Pointwise::kMul, {sums, graph.number(1.0F)}, delta_);

  // p = exp(s − lse), dv = pᵀ do
  const Tensor scaled = graph.pointwise(Pointwise::kMul, {graph.matmul(q_, k_), scale});
  const Tensor p =
      graph.pointwise(Pointwise::kExp, {causal(graph, graph.pointwise(Pointwise::kSub, {scaled, lse_}))});
  const Sizes turned = {x.s * x.s * x.h, x.s * x.s, 1, x.s};
  const auto add_heads = [&](const Tensor& rows, const Tensor& other, const Tensor& sum) {
    const Tensor left = graph.reshape(rows, x.scores(), turned, stored);
    if (x.h == x.g) {
      graph.matmul_into(left, other, sum);
    } else {
      graph.reduce_into(Reduction::kAdd, graph.matmul(left, other, stored), sum);
    }
  };
  add_heads(p, d_o_, dv_);

  // ds = p · (do vᵀ − delta) · scale, dk = dsᵀ q, dq = ds k
  const Tensor difference = graph.pointwise(Pointwise::kSub, {graph.matmul(d_o_, v_), delta_});
  const Tensor ds =
      graph.pointwise(Pointwise::kMul, {graph.pointwise(Pointwise::kMul, {difference, p}), scale});
  add_heads(ds, q_, dk_);
  graph.matmul_into(ds, graph.reshape(k_, x.keys(), x.key_strides(), Type::kFloat), dq_);
  graph.build(handle);
}

void ForwardPlan::run(const AttentionForwardArgs& args, void* workspace) const {
  graph_.execute(handle_,
                 {{q_, args.q.raw()},
                  {k_, args.k.raw()},
                  {v_, args.v.raw()},
                  {o_, args.o.raw()},
                  {lse_, args.lse.raw()}},
                 workspace);
}

void BackwardPlan::run(const AttentionBackwardArgs& args, void* workspace) const {
  auto* memory = static_cast<unsigned char*>(workspace);
  graph_.execute(handle_,
                 {{q_, args.q.raw()},
                  {k_, args.k.raw()},
                  {v_, args.v.raw()},
                  {o_, args.o.raw()},
                  {lse_, args.lse.raw()},
                  {d_o_, args.d_o.raw()},
                  {dq_, args.dq.raw()},
                  {dk_, args.dk.raw()},
                  {dv_, args.dv.raw()},
                  {delta_, memory}},
                 memory + delta_bytes_);
}

}  // namespace caravan::cudnn

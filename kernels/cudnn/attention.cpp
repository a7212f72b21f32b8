#include "kernels/cudnn/attention.h"

#include <limits>
#include <utility>

#include "caravan/core/error.h"

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

constexpr std::int64_t rounded_up(std::int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

}  // namespace

void check_supported(const AttentionShape& shape, MaskKind mask, DType dtype) {
  if (mask != MaskKind::kCausal) {
    fail<ConfigError>(
        "attention: cudnn computes plain causal rows only, and this batch has packed documents or divided "
        "positions; "
        "use attention: own");
  }
  if (shape.query_len != shape.key_len) {
    fail<ConfigError>(
        "attention: cudnn wants as many keys as queries, and there are {} and {} (context parallelism, "
        "generation); "
        "use attention: own",
        shape.key_len, shape.query_len);
  }
  if (dtype != DType::kBFloat16) {
    fail<ConfigError>("attention: cudnn computes in bfloat16, and this model in {}; use attention: own",
                      dtype_name(dtype));
  }
  if (shape.head_dim > 128 || shape.head_dim % 8 != 0) {
    fail<ConfigError>(
        "attention: cudnn takes heads of up to 128 in multiples of 8, and this model has {}; use attention: "
        "own",
        shape.head_dim);
  }
}

AttentionPlan::Forward AttentionPlan::forward_graph(const std::shared_ptr<const Library>& library,
                                                    const AttentionShape& shape) {
  const Geometry x(shape);
  Graph graph(library);
  const Tensor q = graph.stored(x.queries(), x.query_strides(), Type::kBFloat16);
  const Tensor k = graph.stored(x.keys_transposed(), x.key_strides_transposed(), Type::kBFloat16);
  const Tensor v = graph.stored(x.keys(), x.key_strides(), Type::kBFloat16);
  const Tensor o = graph.stored(x.queries(), x.query_strides(), Type::kBFloat16);
  const Tensor lse = graph.stored(x.rows(), x.lse_strides(), Type::kFloat);
  const Tensor products = graph.matmul(q, k);
  const Tensor scaled =
      graph.pointwise(Pointwise::kMul, {products, graph.number(static_cast<float>(shape.scale))});
  const Tensor scores = causal(graph, scaled);
  const Tensor maximum = graph.reduce(Reduction::kMax, scores, x.rows());
  const Tensor exponentials =
      graph.pointwise(Pointwise::kExp, {graph.pointwise(Pointwise::kSub, {scores, maximum})});
  const Tensor sum = graph.reduce(Reduction::kAdd, exponentials, x.rows());
  graph.pointwise_into(Pointwise::kAdd, {maximum, graph.pointwise(Pointwise::kLog, {sum})}, lse);
  const Tensor weights = graph.pointwise(Pointwise::kDiv, {exponentials, sum}, Type::kBFloat16);
  graph.matmul_into(weights, v, o);
  return {std::move(graph), q, k, v, o, lse};
}

AttentionPlan::Backward AttentionPlan::backward_graph(const std::shared_ptr<const Library>& library,
                                                      const AttentionShape& shape) {
  const Geometry x(shape);
  Graph graph(library);
  const auto query_tensor = [&] { return graph.stored(x.queries(), x.query_strides(), Type::kBFloat16); };
  const auto key_tensor = [&] { return graph.stored(x.keys(), x.key_strides(), Type::kBFloat16); };
  const auto transposed_tensor = [&] {
    return graph.stored(x.keys_transposed(), x.key_strides_transposed(), Type::kBFloat16);
  };
  const Tensor q = query_tensor();
  const Tensor k = transposed_tensor();
  const Tensor v = transposed_tensor();
  const Tensor o = query_tensor();
  const Tensor lse = graph.stored(x.rows(), x.lse_strides(), Type::kFloat);
  const Tensor d_o = query_tensor();
  const Tensor dq = query_tensor();
  const Tensor dk = key_tensor();
  const Tensor dv = key_tensor();
  const Tensor delta = graph.stored(x.rows(), packed(x.rows()), Type::kFloat);
  const Tensor scale = graph.number(static_cast<float>(shape.scale));

  // delta = Σ_e do · o; the factor stands for dropout's, and cuDNN looks for it.
  const Tensor sums = graph.reduce(Reduction::kAdd, graph.pointwise(Pointwise::kMul, {d_o, o}), x.rows());
  graph.pointwise_into(Pointwise::kMul, {sums, graph.number(1.0F)}, delta);

  // p = exp(s − lse), dv = pᵀ do
  const Tensor scaled = graph.pointwise(Pointwise::kMul, {graph.matmul(q, k), scale});
  const Tensor p =
      graph.pointwise(Pointwise::kExp, {causal(graph, graph.pointwise(Pointwise::kSub, {scaled, lse}))});
  const Sizes turned = {x.s * x.s * x.h, x.s * x.s, 1, x.s};
  const auto add_heads = [&](const Tensor& rows, const Tensor& other, const Tensor& sum) {
    const Tensor left = graph.reshape(rows, x.scores(), turned, Type::kBFloat16);
    if (x.h == x.g) {
      graph.matmul_into(left, other, sum);
    } else {
      graph.reduce_into(Reduction::kAdd, graph.matmul(left, other, Type::kBFloat16), sum);
    }
  };
  add_heads(p, d_o, dv);

  // ds = p · (do vᵀ − delta) · scale, dk = dsᵀ q, dq = ds k
  const Tensor difference = graph.pointwise(Pointwise::kSub, {graph.matmul(d_o, v), delta});
  const Tensor ds =
      graph.pointwise(Pointwise::kMul, {graph.pointwise(Pointwise::kMul, {difference, p}), scale});
  add_heads(ds, q, dk);
  graph.matmul_into(ds, graph.reshape(k, x.keys(), x.key_strides(), Type::kFloat), dq);
  return {std::move(graph), q, k, v, o, lse, d_o, dq, dk, dv, delta};
}

AttentionPlan::AttentionPlan(const std::shared_ptr<const Library>& library, Handle handle,
                             const AttentionShape& shape)
    : handle_(handle),
      delta_bytes_(rounded_up(shape.batch * shape.n_heads * shape.query_len *
                              static_cast<std::int64_t>(sizeof(float)))),
      forward_(forward_graph(library, shape)),
      backward_(backward_graph(library, shape)) {
  forward_.graph.build(handle);
  backward_.graph.build(handle);
}

std::int64_t AttentionPlan::forward_workspace_bytes() const {
  return forward_.graph.workspace_bytes();
}

std::int64_t AttentionPlan::backward_workspace_bytes() const {
  return delta_bytes_ + backward_.graph.workspace_bytes();
}

void AttentionPlan::forward(const AttentionForwardArgs& args, void* workspace) const {
  const Forward& f = forward_;
  f.graph.execute(handle_,
                  {{f.q, args.q.raw()},
                   {f.k, args.k.raw()},
                   {f.v, args.v.raw()},
                   {f.o, args.o.raw()},
                   {f.lse, args.lse.raw()}},
                  workspace);
}

void AttentionPlan::backward(const AttentionBackwardArgs& args, void* workspace) const {
  const Backward& f = backward_;
  auto* memory = static_cast<unsigned char*>(workspace);
  f.graph.execute(handle_,
                  {{f.q, args.q.raw()},
                   {f.k, args.k.raw()},
                   {f.v, args.v.raw()},
                   {f.o, args.o.raw()},
                   {f.lse, args.lse.raw()},
                   {f.d_o, args.d_o.raw()},
                   {f.dq, args.dq.raw()},
                   {f.dk, args.dk.raw()},
                   {f.dv, args.dv.raw()},
                   {f.delta, memory}},
                  memory + delta_bytes_);
}

}  // namespace caravan::cudnn

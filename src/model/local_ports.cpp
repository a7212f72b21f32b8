#include "caravan/model/local_ports.h"

#include <cmath>
#include <numeric>

#include "caravan/backend/device_memory.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"

namespace caravan {

AttentionShape AttentionCall::shape(std::int64_t key_len) const {
  return {.batch = batch.batch,
          .query_len = batch.seq_len,
          .key_len = key_len,
          .n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .scale = 1.0 / std::sqrt(static_cast<double>(head_dim))};
}

namespace {

AttentionMask own_tokens(const TokenBatch& batch) {
  return {.query_index = batch.index,
          .key_index = batch.index,
          .document_start = batch.document_start,
          .kind = batch.mask};
}

}  // namespace

TensorView LocalBoundary::enter(Context& /*ctx*/, const TensorView& x_stream,
                                const Allocate& /*allocate*/) const {
  return x_stream;
}

TensorView LocalBoundary::partial_buffer(Context& /*ctx*/, const TensorView& stream) const {
  return stream;
}

Pending LocalBoundary::enter_backward(Context& /*ctx*/, const TensorView& dx_partial,
                                      const TensorView& dx_stream) const {
  CARAVAN_CHECK(dx_partial.raw() == dx_stream.raw(), "the one-rank boundary reduces in place");
  return {};
}

Pending LocalBoundary::leave(Context& ctx, const TensorView& y_partial, const TensorView& y_stream) const {
  CARAVAN_CHECK(y_partial.raw() == y_stream.raw(), "the one-rank boundary reduces in place");
  if (output_factor_ != 1.0) {
    scale(ctx, {.x = y_stream, .factor = output_factor_});
  }
  return {};
}

TensorView LocalBoundary::leave_backward(Context& ctx, const TensorView& dy_stream,
                                         const Allocate& allocate) const {
  if (output_factor_ == 1.0) {
    return dy_stream;
  }
  const TensorView scaled = allocate(dy_stream.shape());  // the residual's own gradient must stay as it is
  copy(ctx, {.from = dy_stream, .to = scaled});
  scale(ctx, {.x = scaled, .factor = output_factor_});
  return scaled;
}

void LocalAttention::forward(Context& ctx, const AttentionCall& call, const TensorView& q,
                             const TensorView& k, const TensorView& v, const TensorView& o,
                             const TensorView& lse) const {
  attention_forward(ctx, {.shape = call.shape(call.batch.seq_len),
                          .mask = own_tokens(call.batch),
                          .q = q,
                          .k = k,
                          .v = v,
                          .o = o,
                          .lse = lse});
}

void LocalAttention::backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const {
  attention_backward(ctx, {.shape = call.shape(call.batch.seq_len),
                           .mask = own_tokens(call.batch),
                           .q = args.q,
                           .k = args.k,
                           .v = args.v,
                           .o = args.o,
                           .lse = args.lse,
                           .d_o = args.d_o,
                           .dq = args.dq,
                           .dk = args.dk,
                           .dv = args.dv});
}

std::int64_t CachedAttention::bytes(DType dtype, std::int64_t n_layers, std::int64_t capacity,
                                    std::int64_t kv_width) {
  return n_layers * 2 * capacity * kv_width * static_cast<std::int64_t>(dtype_bytes(dtype));
}

CachedAttention::CachedAttention(Backend& backend, DType dtype, Range layers, std::int64_t capacity,
                                 std::int64_t kv_width)
    : layers_(layers),
      memory_(backend.allocate(bytes(dtype, layers.size(), capacity, kv_width))),
      key_index_(backend.allocate(capacity * static_cast<std::int64_t>(sizeof(std::int32_t)))),
      dtype_(dtype),
      capacity_(capacity),
      kv_width_(kv_width) {
  HostDraft index(key_index_.view(0, DType::kInt32, {capacity}));
  auto* first = index.view().data<std::int32_t>();
  std::iota(first, first + capacity, 0);
  index.commit();
}

TensorView CachedAttention::cache(int layer, int which) const {
  CARAVAN_CHECK(layers_.begin <= layer && layer < layers_.end, "layer {} has no K/V cache here", layer);
  const std::int64_t one = capacity_ * kv_width_ * static_cast<std::int64_t>(dtype_bytes(dtype_));
  return memory_.view((2 * (layer - layers_.begin) + which) * one, dtype_, {capacity_, kv_width_});
}

void CachedAttention::forward(Context& ctx, const AttentionCall& call, const TensorView& q,
                              const TensorView& k, const TensorView& v, const TensorView& o,
                              const TensorView& lse) const {
  CARAVAN_CHECK(call.batch.batch == 1, "the K/V cache holds one row, not {}", call.batch.batch);
  const std::int64_t begin = call.batch.first_index;
  const std::int64_t end = begin + call.batch.seq_len;
  CARAVAN_CHECK(end <= capacity_, "K/V cache of {} tokens is full", capacity_);
  const TensorView keys = cache(call.layer, 0);
  const TensorView values = cache(call.layer, 1);
  copy(ctx, {.from = k, .to = keys.rows(begin, end)});
  copy(ctx, {.from = v, .to = values.rows(begin, end)});
  attention_forward(ctx, {.shape = call.shape(end),
                          .mask = {.query_index = call.batch.index,
                                   .key_index = key_index_.view(0, DType::kInt32, {end}),
                                   .document_start = call.batch.document_start},
                          .q = q,
                          .k = keys.rows(0, end),
                          .v = values.rows(0, end),
                          .o = o,
                          .lse = lse});
}

void CachedAttention::backward(Context& /*ctx*/, const AttentionCall& /*call*/,
                               const BackwardArgs& /*args*/) const {
  throw InternalError("cached attention is for generation and has no backward pass");
}

void LocalVocab::reduce(Context& /*ctx*/, const TensorView& /*row_max*/, const TensorView& /*row_sum*/,
                        const TensorView& /*target_logit*/) const {}

void ReplicatedStore::count(int group, int change) {
  for (Parameter& parameter : parameters_.all()) {
    if (parameter.spec().group != group) {
      continue;
    }
    parameter.leases_ += change;
    CARAVAN_CHECK(parameter.leases_ >= 0, "{} is released more often than acquired", parameter.name());
  }
}

}  // namespace caravan

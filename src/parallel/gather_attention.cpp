#include "caravan/parallel/gather_attention.h"

#include "caravan/model/local_ports.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "caravan/parallel/context_keys.h"

namespace caravan {
namespace {

const ContextKeys& order_of(const Communicator& cp, const TokenBatch& batch) {
  return keys_of(batch, {.ranks = cp.size(), .exchange = ContextExchange::kGather});
}

/// All keys and values in one call's scratch memory.
class AllKeys {
 public:
  AllKeys(Context& ctx, Communicator& cp, const AttentionCall& call, const TensorView& k, const TensorView& v)
      : order_(order_of(cp, call.batch)), tokens_(k.dim(0)), all_(cp.size() * tokens_) {
    gathered_ = ctx.allocate("gathered keys and values", {2 * all_, k.dim(1)});
    own_ = gathered_.rows(cp.rank() * 2 * tokens_, (cp.rank() + 1) * 2 * tokens_);
    copy(ctx, {.from = k, .to = own_.rows(0, tokens_)});
    copy(ctx, {.from = v, .to = own_.rows(tokens_, 2 * tokens_)});
    cp.all_gather(own_, gathered_);
    sorted_ = ctx.allocate("sorted keys and values", gathered_.shape());
    order_.sort(ctx, gathered_, sorted_);
  }

  TensorView k() const { return sorted_.rows(0, all_); }
  TensorView v() const { return sorted_.rows(all_, 2 * all_); }
  AttentionMask mask(const TokenBatch& batch) const {
    return {.query_index = batch.index, .key_index = order_.index, .document_start = batch.document_start};
  }

  /// dk and dv of this rank's tokens, summed over the ranks, from `dsorted` [2·B·c·S, G·E] in the order of k
  /// and v. The keys are gone then.
  void scatter(Context& ctx, Communicator& cp, const TensorView& dsorted, const TensorView& dk,
               const TensorView& dv) const {
    order_.unsort(ctx, dsorted, gathered_);
    cp.reduce_scatter(gathered_, own_);
    copy(ctx, {.from = own_.rows(0, tokens_), .to = dk});
    copy(ctx, {.from = own_.rows(tokens_, 2 * tokens_), .to = dv});
  }

 private:
  const ContextKeys& order_;
  std::int64_t tokens_;
  std::int64_t all_;
  TensorView gathered_;
  TensorView own_;  // this rank's part of gathered_
  TensorView sorted_;
};

}  // namespace

void GatherAttention::forward(Context& ctx, const AttentionCall& call, const TensorView& q,
                              const TensorView& k, const TensorView& v, const TensorView& o,
                              const TensorView& lse) const {
  if (cp_.size() == 1 && order_of(cp_, call.batch).is_sorted) {
    LocalAttention().forward(ctx, call, q, k, v, o, lse);
    return;
  }
  const ArenaScope scope(ctx.scratch);
  const AllKeys keys(ctx, cp_, call, k, v);
  attention_forward(ctx, {.shape = call.shape(cp_.size() * call.batch.seq_len),
                          .mask = keys.mask(call.batch),
                          .q = q,
                          .k = keys.k(),
                          .v = keys.v(),
                          .o = o,
                          .lse = lse});
}

void GatherAttention::backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const {
  if (cp_.size() == 1 && order_of(cp_, call.batch).is_sorted) {
    LocalAttention().backward(ctx, call, args);
    return;
  }
  const ArenaScope scope(ctx.scratch);
  const AllKeys keys(ctx, cp_, call, args.k, args.v);
  const std::int64_t all = keys.k().dim(0);
  const TensorView dsorted = ctx.allocate("gradients of all keys and values", {2 * all, args.k.dim(1)});
  attention_backward(ctx, {.shape = call.shape(cp_.size() * call.batch.seq_len),
                           .mask = keys.mask(call.batch),
                           .q = args.q,
                           .k = keys.k(),
                           .v = keys.v(),
                           .o = args.o,
                           .lse = args.lse,
                           .d_o = args.d_o,
                           .dq = args.dq,
                           .dk = dsorted.rows(0, all),
                           .dv = dsorted.rows(all, 2 * all)});
  keys.scatter(ctx, cp_, dsorted, args.dk, args.dv);
}

}  // namespace caravan

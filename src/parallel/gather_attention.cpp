#include "caravan/parallel/gather_attention.h"

#include <limits>
#include <vector>

#include "caravan/model/local_ports.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "context_tokens.h"

namespace caravan {
namespace {

/// Where the keys of all c ranks are. Gathered, the keys and values of a rank's T = B·S tokens follow each
/// other: [c, 2, T] rows. Sorted, all keys precede all values, row by row in the order of their index: [2, B,
/// c·S].
struct KeyOrder {
  TensorView index;        // [B·c·S] int32, sorted
  TensorView to_sorted;    // [2·B·c·S] int32: sorted row i is this row of the gathered
  TensorView to_gathered;  // [c·2·T] int32: the way back
};

KeyOrder order_keys(const Context& ctx, Communicator& cp, const TokenBatch& batch) {
  const std::int64_t ranks = cp.size();
  const std::int64_t tokens = batch.n_tokens();
  const std::int64_t length = ranks * batch.seq_len;  // keys of a row
  const std::int64_t all = ranks * tokens;
  CARAVAN_CHECK(2 * all <= std::numeric_limits<std::int32_t>::max(), "{} keys of {} ranks", tokens, ranks);
  const TensorView gathered = ctx.scratch.allocate("key indices", DType::kInt32, {all});
  cp.all_gather(batch.index, gathered);
  const std::vector<std::int32_t> by_rank = host_numbers(gathered);

  const auto size = static_cast<std::size_t>(all);
  std::vector<std::int32_t> by_row(size);
  std::vector<std::int32_t> sorted(size);
  std::vector<std::int32_t> to_sorted(2 * size);
  std::vector<std::int32_t> to_gathered(2 * size);
  if (!by_rank.empty()) {
    const auto token_at = [&](std::int64_t row, std::int64_t place) {  // place in [0, c·S): rank by rank
      return place / batch.seq_len * tokens + row * batch.seq_len + place % batch.seq_len;
    };
    for (std::int64_t i = 0; i < all; ++i) {
      by_row[static_cast<std::size_t>(i)] =
          by_rank[static_cast<std::size_t>(token_at(i / length, i % length))];
    }
    const std::vector<std::int32_t> places = sorted_places(by_row, batch.batch, length);
    for (std::int64_t i = 0; i < all; ++i) {
      const std::int64_t row = i / length;
      const std::int64_t place = places[static_cast<std::size_t>(i)];
      const std::int64_t token = token_at(row, place);
      const std::int64_t key = token / tokens * 2 * tokens + token % tokens;
      sorted[static_cast<std::size_t>(i)] = by_row[static_cast<std::size_t>(row * length + place)];
      to_sorted[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(key);
      to_sorted[static_cast<std::size_t>(all + i)] = static_cast<std::int32_t>(key + tokens);
      to_gathered[static_cast<std::size_t>(key)] = static_cast<std::int32_t>(i);
      to_gathered[static_cast<std::size_t>(key + tokens)] = static_cast<std::int32_t>(all + i);
    }
  }
  return {.index = to_scratch(ctx, "sorted key indices", sorted),
          .to_sorted = to_scratch(ctx, "order of keys", to_sorted),
          .to_gathered = to_scratch(ctx, "order of ranks", to_gathered)};
}

/// All keys and values in one call's scratch memory.
class AllKeys {
 public:
  AllKeys(Context& ctx, Communicator& cp, const AttentionCall& call, const TensorView& k, const TensorView& v)
      : order_(order_keys(ctx, cp, call.batch)), tokens_(k.dim(0)), all_(cp.size() * tokens_) {
    gathered_ = ctx.allocate("gathered keys and values", {2 * all_, k.dim(1)});
    own_ = gathered_.rows(cp.rank() * 2 * tokens_, (cp.rank() + 1) * 2 * tokens_);
    copy(ctx, {.from = k, .to = own_.rows(0, tokens_)});
    copy(ctx, {.from = v, .to = own_.rows(tokens_, 2 * tokens_)});
    cp.all_gather(own_, gathered_);
    sorted_ = ctx.allocate("sorted keys and values", gathered_.shape());
    take_rows(ctx, gathered_, order_.to_sorted, sorted_);
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
    take_rows(ctx, dsorted, order_.to_gathered, gathered_);
    cp.reduce_scatter(gathered_, own_);
    copy(ctx, {.from = own_.rows(0, tokens_), .to = dk});
    copy(ctx, {.from = own_.rows(tokens_, 2 * tokens_), .to = dv});
  }

 private:
  KeyOrder order_;
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
  if (is_alone(cp_, call.batch)) {
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
  if (is_alone(cp_, call.batch)) {
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

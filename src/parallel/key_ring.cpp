#include "key_ring.h"

#include <algorithm>

#include "caravan/ops/elementwise.h"
#include "context_tokens.h"

namespace caravan {

KeyRing::KeyRing(Context& ctx, Communicator& cp, const AttentionCall& call, const TensorView& k,
                 const TensorView& v)
    : ctx_(ctx), cp_(cp), batch_(call.batch), tokens_(k.dim(0)) {
  host_query_ = host_numbers(batch_.index);
  host_start_ = host_numbers(batch_.document_start);
  for (TensorView& buffer : buffers_) {
    buffer = ctx.allocate("keys and values of a rank", {2 * tokens_, k.dim(1)});
  }
  TensorView own_index = batch_.index;
  is_sorted_ = is_in_order(host_query_, batch_.batch, batch_.seq_len);
  if (is_sorted_) {
    copy(ctx, {.from = k, .to = this->k()});
    copy(ctx, {.from = v, .to = this->v()});
  } else {
    std::vector<std::int32_t> order = sorted_places(host_query_, batch_.batch, batch_.seq_len);
    std::vector<std::int32_t> places(order.size());
    std::vector<std::int32_t> sorted(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::int64_t row = static_cast<std::int64_t>(i) / batch_.seq_len;
      order[i] += static_cast<std::int32_t>(row * batch_.seq_len);
      places[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
      sorted[i] = host_query_[static_cast<std::size_t>(order[i])];
    }
    own_index = to_scratch(ctx, "sorted key indices", sorted);
    place_of_token_ = to_scratch(ctx, "place of a token", places);
    const TensorView taken = to_scratch(ctx, "order of keys", order);
    take_rows(ctx, k, taken, this->k());
    take_rows(ctx, v, taken, this->v());
  }
  index_ = ctx.scratch.allocate("key indices", DType::kInt32, {cp.size() * tokens_});
  cp.all_gather(own_index, index_);
  host_index_ = host_numbers(index_);
}

void KeyRing::start_passing() {
  if (!is_last()) {
    received_ = cp_.start_receive(buffers_[static_cast<std::size_t>((step_ + 1) % 2)], before(), kTag);
    sent_ = cp_.start_send(buffer(), next(), kTag);
  }
}

void KeyRing::advance() {
  received_.wait();
  sent_.wait();
  ++step_;
}

AttentionMask KeyRing::mask() const {
  return {.query_index = batch_.index,
          .key_index = index_.rows(owner() * tokens_, (owner() + 1) * tokens_),
          .document_start = batch_.document_start};
}

bool KeyRing::is_seen() const {
  if (host_index_.empty()) {
    return true;
  }
  const std::int32_t* keys = host_index_.data() + owner() * tokens_;
  for (std::int64_t token = 0; token < tokens_; ++token) {
    const std::int32_t* row = keys + token / batch_.seq_len * batch_.seq_len;
    const auto at = static_cast<std::size_t>(token);
    const std::int32_t* first = std::lower_bound(row, row + batch_.seq_len, host_start_[at]);
    if (first != row + batch_.seq_len && *first <= host_query_[at]) {
      return true;
    }
  }
  return false;
}

void KeyRing::unsort(const TensorView& sorted, const TensorView& tokens) const {
  if (is_sorted_) {
    copy(ctx_, {.from = sorted, .to = tokens});
  } else {
    take_rows(ctx_, sorted, place_of_token_, tokens);
  }
}

}  // namespace caravan

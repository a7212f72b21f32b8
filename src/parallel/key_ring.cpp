#include "key_ring.h"

namespace caravan {

KeyRing::KeyRing(Context& ctx, Communicator& cp, const AttentionCall& call, const TensorView& k,
                 const TensorView& v)
    : ctx_(ctx), cp_(cp), batch_(call.batch), keys_(of(cp, call.batch)), tokens_(k.dim(0)) {
  for (TensorView& buffer : buffers_) {
    buffer = ctx.allocate("keys and values of a rank", {2 * tokens_, k.dim(1)});
  }
  keys_.sort(ctx, k, this->k());
  keys_.sort(ctx, v, this->v());
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
          .key_index = keys_.index.rows(owner() * tokens_, (owner() + 1) * tokens_),
          .document_start = batch_.document_start};
}

}  // namespace caravan

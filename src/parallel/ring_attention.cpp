#include "caravan/parallel/ring_attention.h"

#include <array>

#include "caravan/model/local_ports.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "key_ring.h"

namespace caravan {
namespace {

constexpr int kGradientsTag = KeyRing::kTag + 1;

/// The gradients of a rank's keys, which follow them round the ring one step behind the computation.
class GradientRing {
 public:
  GradientRing(Context& ctx, Communicator& cp, const KeyRing& keys, const TensorView& k)
      : ctx_(ctx), cp_(cp), keys_(keys), tokens_(k.dim(0)) {
    for (TensorView& buffer : buffers_) {
      buffer = ctx.allocate("gradients of a rank's keys", {2 * tokens_, k.dim(1)});
    }
    part_ =
        cp.size() > 1 ? ctx.allocate("a step's gradients of keys", {2 * tokens_, k.dim(1)}) : TensorView();
  }

  /// Where this step's dk, then dv are to be written.
  TensorView of_step() const { return keys_.step() == 0 ? buffers_[0] : part_; }
  TensorView half(const TensorView& both, int which) const {
    return both.rows(which * tokens_, (which + 1) * tokens_);
  }

  /// Before a step computes: the sums so far of the present keys start to come in.
  void start_receiving() {
    if (keys_.step() > 0) {
      received_ = cp_.start_receive(buffer(keys_.step()), keys_.before(), kGradientsTag);
    }
  }
  /// After it: adds what it computed, if anything, and hands the sums on; after the last step home.
  void pass_on(bool has_part) {
    if (keys_.step() > 0) {
      received_.wait();
      if (has_part) {
        add(ctx_, {.x = buffer(keys_.step()), .z = part_, .y = buffer(keys_.step())});
      }
      sent_.wait();  // the other buffer may be received into
    }
    if (cp_.size() > 1) {
      sent_ = cp_.start_send(buffer(keys_.step()), keys_.next(), kGradientsTag);
    }
  }
  /// The complete gradients of this rank's own keys.
  TensorView come_home() {
    if (cp_.size() > 1) {
      cp_.receive(buffer(keys_.step() + 1), keys_.before(), kGradientsTag);
      sent_.wait();
    }
    return buffer(cp_.size() > 1 ? keys_.step() + 1 : 0);
  }

 private:
  const TensorView& buffer(int step) const { return buffers_[static_cast<std::size_t>(step % 2)]; }

  Context& ctx_;
  Communicator& cp_;
  const KeyRing& keys_;
  std::int64_t tokens_;
  std::array<TensorView, 2> buffers_;  // [2·T, G·E]: of even and of odd steps
  TensorView part_;
  Pending received_;
  Pending sent_;
};

}  // namespace

RingAttention::RingAttention(Communicator& cp) : cp_(cp) {
  cp.prepare_messages(std::array{KeyRing::kTag, kGradientsTag});
}

void RingAttention::forward(Context& ctx, const AttentionCall& call, const TensorView& q, const TensorView& k,
                            const TensorView& v, const TensorView& o, const TensorView& lse) const {
  if (cp_.size() == 1 && KeyRing::of(cp_, call.batch).is_sorted) {
    LocalAttention().forward(ctx, call, q, k, v, o, lse);
    return;
  }
  const ArenaScope scope(ctx.scratch);
  KeyRing keys(ctx, cp_, call, k, v);
  const bool has_others = cp_.size() > 1;
  const TensorView o_part = !has_others ? TensorView() : ctx.allocate("a step's output", o.shape());
  const TensorView lse_part =
      !has_others ? TensorView() : ctx.allocate_sums("a step's log-sum-exp", lse.shape());
  for (;;) {
    keys.start_passing();
    const bool is_first = keys.step() == 0;
    if (is_first || keys.is_seen()) {
      attention_forward(ctx, {.shape = call.shape(call.batch.seq_len),
                              .mask = keys.mask(),
                              .q = q,
                              .k = keys.k(),
                              .v = keys.v(),
                              .o = is_first ? o : o_part,
                              .lse = is_first ? lse : lse_part});
      if (!is_first) {
        attention_merge(ctx, {.o = o, .lse = lse, .o_part = o_part, .lse_part = lse_part});
      }
    }
    if (keys.is_last()) {
      return;
    }
    keys.advance();
  }
}

void RingAttention::backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const {
  if (cp_.size() == 1 && KeyRing::of(cp_, call.batch).is_sorted) {
    LocalAttention().backward(ctx, call, args);
    return;
  }
  const ArenaScope scope(ctx.scratch);
  KeyRing keys(ctx, cp_, call, args.k, args.v);
  GradientRing gradients(ctx, cp_, keys, args.k);
  const TensorView dq_part = cp_.size() > 1 ? ctx.allocate("a step's dq", args.dq.shape()) : TensorView();
  for (;;) {
    keys.start_passing();
    gradients.start_receiving();
    const bool is_first = keys.step() == 0;
    const bool is_seen = is_first || keys.is_seen();
    if (is_seen) {
      attention_backward(ctx, {.shape = call.shape(call.batch.seq_len),
                               .mask = keys.mask(),
                               .q = args.q,
                               .k = keys.k(),
                               .v = keys.v(),
                               .o = args.o,
                               .lse = args.lse,
                               .d_o = args.d_o,
                               .dq = is_first ? args.dq : dq_part,
                               .dk = gradients.half(gradients.of_step(), 0),
                               .dv = gradients.half(gradients.of_step(), 1)});
      if (!is_first) {
        add(ctx, {.x = args.dq, .z = dq_part, .y = args.dq});
      }
    }
    gradients.pass_on(is_seen);
    if (keys.is_last()) {
      break;
    }
    keys.advance();
  }
  const TensorView own = gradients.come_home();
  keys.unsort(gradients.half(own, 0), args.dk);
  keys.unsort(gradients.half(own, 1), args.dv);
}

}  // namespace caravan

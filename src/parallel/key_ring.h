// The keys and values of one rank after the other, as they pass by in a ring.
#pragma once

#include <array>
#include <cstdint>

#include "caravan/comm/communicator.h"
#include "caravan/model/ports.h"
#include "caravan/parallel/context_keys.h"

namespace caravan {

/// Lives in one call's scratch memory. At step s the keys of rank (rank − s) mod c are here, each row sorted
/// by index. Collective over `cp`.
class KeyRing {
 public:
  static constexpr int kTag = 0;
  static const ContextKeys& of(const Communicator& cp, const TokenBatch& batch) {
    return keys_of(batch, {.ranks = cp.size(), .exchange = ContextExchange::kRing});
  }

  KeyRing(Context& ctx, Communicator& cp, const AttentionCall& call, const TensorView& k,
          const TensorView& v);

  int step() const { return step_; }
  bool is_last() const { return step_ + 1 == cp_.size(); }
  /// The rank that this one hands things to, and the one it has them from.
  int next() const { return (cp_.rank() + 1) % cp_.size(); }
  int before() const { return (cp_.rank() + cp_.size() - 1) % cp_.size(); }

  /// Starts to hand the present keys on and to receive the following ones; nothing in the last step.
  void start_passing();
  /// Waits until the following keys are here.
  void advance();

  TensorView k() const { return buffer().rows(0, tokens_); }
  TensorView v() const { return buffer().rows(tokens_, 2 * tokens_); }
  AttentionMask mask() const;
  /// False when no query of this rank sees any of the present keys. True on shapes alone.
  bool is_seen() const { return keys_.is_seen(owner()); }

  /// Rows in the order of k() of the first step into the order of the tokens.
  void unsort(const TensorView& sorted, const TensorView& tokens) const {
    keys_.unsort(ctx_, sorted, tokens);
  }

 private:
  const TensorView& buffer() const { return buffers_[static_cast<std::size_t>(step_ % 2)]; }
  std::int64_t owner() const { return (cp_.rank() + cp_.size() - step_) % cp_.size(); }

  Context& ctx_;
  Communicator& cp_;
  const TokenBatch& batch_;
  const ContextKeys& keys_;
  std::int64_t tokens_;
  int step_ = 0;
  std::array<TensorView, 2> buffers_;  // [2·T, G·E] keys, then values: of even and of odd steps
  Pending sent_;
  Pending received_;
};

}  // namespace caravan

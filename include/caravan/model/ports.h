// The four places where the world outside this rank is visible to the model. The one-rank implementations are
// in model/local_ports.h; parallel layouts implement them elsewhere.
#pragma once

#include <functional>
#include <vector>

#include "caravan/backend/context.h"
#include "caravan/backend/pending.h"
#include "caravan/model/token_batch.h"

namespace caravan {

/// Where a port puts a tensor that needs memory of its own: scratch, or a saved slot.
using Allocate = std::function<TensorView(const Shape&)>;

/// Entry and exit of a segment's parallel region. Three levels of tokens: the residual stream's [T_stream, D]
/// and the region's full [T, D]. enter and enter_backward are mutually adjoint, and so are leave and
/// leave_backward.
class Boundary {
 public:
  virtual ~Boundary() = default;
  /// Tokens of the residual stream on this rank when the region has `tokens`.
  virtual std::int64_t stream_tokens(std::int64_t tokens) const { return tokens; }
  /// The first of the region's tokens that the stream here has; the others follow it.
  virtual std::int64_t stream_begin(std::int64_t /*tokens*/) const { return 0; }
  /// Stream to full. May return `x_stream` itself (alias); else memory from `allocate`.
  virtual TensorView enter(Context& ctx, const TensorView& x_stream, const Allocate& allocate) const = 0;
  /// Where a partial sum that will be reduced into `stream` is written; may be `stream` itself.
  virtual TensorView partial_buffer(Context& ctx, const TensorView& stream) const = 0;
  /// Reduces the ranks' partial input gradients into the stream's. Started here, complete after wait().
  virtual Pending enter_backward(Context& ctx, const TensorView& dx_partial,
                                 const TensorView& dx_stream) const = 0;
  /// Reduces the ranks' partial outputs into the stream's.
  virtual Pending leave(Context& ctx, const TensorView& y_partial, const TensorView& y_stream) const = 0;
  /// Gradient of the stream's output to the full one. `dy_stream` is not changed; may be returned (alias).
  virtual TensorView leave_backward(Context& ctx, const TensorView& dy_stream,
                                    const Allocate& allocate) const = 0;
};

/// One attention call: all tensors local, shapes as in backend/op_args.h.
struct AttentionCall {
  const TokenBatch& batch;
  int layer = 0;
  std::int64_t n_heads = 0;     // local
  std::int64_t n_kv_heads = 0;  // local
  std::int64_t head_dim = 0;

  /// The op's shape for rows of `key_len` keys, scale 1/√E.
  AttentionShape shape(std::int64_t key_len) const;
};

/// What attention must see beyond the local tokens. Its memory is fixed: (q, k, v, o, lse).
class AttentionCore {
 public:
  virtual ~AttentionCore() = default;
  virtual void forward(Context& ctx, const AttentionCall& call, const TensorView& q, const TensorView& k,
                       const TensorView& v, const TensorView& o, const TensorView& lse) const = 0;
  struct BackwardArgs {
    TensorView q, k, v, o, lse, d_o;  // read
    TensorView dq, dk, dv;            // written
  };
  virtual void backward(Context& ctx, const AttentionCall& call, const BackwardArgs& args) const = 0;
};

/// Maximum and sum over the vocabulary when its columns are divided over ranks.
class VocabReduce {
 public:
  virtual ~VocabReduce() = default;
  /// Whether all columns are here. Then nothing is reduced, and reduce() is not called.
  virtual bool is_whole() const = 0;
  /// First global column of the logits held here.
  virtual std::int64_t vocab_begin() const = 0;
  /// Combines the per-rank statistics of a chunk in place (row_sum is rescaled to the common maximum). Each
  /// [C].
  virtual void reduce(Context& ctx, const TensorView& row_max, const TensorView& row_sum,
                      const TensorView& target_logit) const = 0;
};

/// Why a group is leased: for its weights alone, or also to add to its gradients.
enum class LeaseUse : std::uint8_t { kForward, kBackward };
/// Whether more gradients of the same step will be added to a group.
enum class MicroBatch : std::uint8_t { kMoreFollow, kLast };

/// How long a weight exists here, and where its gradient goes. A group's parameters may be used between
/// acquire and release; acquisitions are counted, so a tied weight may be leased by two users. What is
/// collective in an implementation all ranks call in the same order.
class ParamStore {
 public:
  virtual ~ParamStore() = default;
  virtual void acquire(int group, LeaseUse use) = 0;
  virtual void release(int group) = 0;
  /// The group will be acquired next: a store that gathers may start.
  virtual void prefetch(int /*group*/, LeaseUse /*use*/) {}
  /// After the group's last backward lease of a micro-batch: nothing of it will be added any more.
  virtual void commit(int /*group*/, MicroBatch /*micro_batch*/) {}
  /// After the last commit of a step: the gradients that this rank updates with become the sums over all
  /// ranks.
  virtual void finish_gradients() {}
  /// Ends what was started and keeps nothing of what was leased, as if no pass had run yet: for passes that
  /// are recorded, and replayed while nobody tells the store.
  virtual void settle() {}
};

/// Holds groups for a scope.
class Lease {
 public:
  /// `groups` must outlive the lease.
  Lease(ParamStore& store, const std::vector<int>& groups, LeaseUse use = LeaseUse::kForward)
      : store_(store), groups_(groups) {
    for (const int group : groups_) {
      store_.acquire(group, use);
    }
  }
  ~Lease() {
    for (const int group : groups_) {
      store_.release(group);
    }
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Lease(Lease&&) = delete;
  Lease& operator=(Lease&&) = delete;

 private:
  ParamStore& store_;
  const std::vector<int>& groups_;
};

}  // namespace caravan

// The head on the last hidden state: final norm, output layer, cross-entropy. Visits tokens in chunks, so the
// logits of a batch are never stored whole; with gradients wanted, each chunk's are formed while its logits
// are at hand.
#pragma once

#include "caravan/model/linear.h"
#include "caravan/model/norm_entry.h"

namespace caravan {

class LmHead {
 public:
  struct Parts {
    Parameter& norm;    // [D]
    Parameter& output;  // [V, D], V local; the embedding when tied
    const Boundary& boundary;
    const VocabReduce& vocab;
    double eps = 0.0;
  };
  explicit LmHead(const Parts& parts)
      : entry_(parts.norm, parts.eps, parts.boundary),
        norm_group_(parts.norm.spec().group),
        output_(parts.output),
        vocab_(parts.vocab) {}

  std::vector<int> groups() const;

  /// Token losses [T] (target_weights · cross-entropy, not divided). Consumes the pending delta.
  void loss(Context& ctx, const TokenBatch& batch, ResidualStream& stream, const TensorView& losses) const;
  /// The same, and g [T_stream, D] = dL/d(last stream) with L = Σ losses · scalars.inv_valid_tokens ·
  /// loss_scale; accumulates the gradients of norm and output.
  void loss_and_backward(Context& ctx, const TokenBatch& batch, ResidualStream& stream,
                         const TensorView& losses, const TensorView& g) const;
  /// Logits of tokens [begin, end) into [end − begin, V]. Consumes the pending delta.
  void logits(Context& ctx, ResidualStream& stream, std::int64_t begin, std::int64_t end,
              const TensorView& logits) const;

  /// Columns of the logits held here.
  std::int64_t columns() const { return output_.out_features(); }

  /// Tokens per chunk: on CPUs at most about 16 Mi logits over the whole vocabulary at a time, on GPUs 1 GiB
  /// of them; at least 64 tokens.
  static std::int64_t chunk_tokens(std::int64_t vocab_size, std::int64_t tokens, DeviceKind kind,
                                   DType dtype);

 private:
  struct Slots;
  struct Chunk;
  /// In three steps, between which the ranks that share the vocabulary combine.
  void cross_entropy_over_ranks(Context& ctx, const Chunk& chunk, LogitsAfter after) const;
  void visit_chunks(Context& ctx, const TokenBatch& batch, const TensorView& full, const TensorView& losses,
                    const TensorView* dfull) const;

  NormEntry entry_;
  int norm_group_;
  Linear output_;
  const VocabReduce& vocab_;
};

}  // namespace caravan

// A vocabulary whose columns are divided over ranks: cross-entropy without gathering logits.
#pragma once

#include <cstdint>

#include "caravan/comm/communicator.h"
#include "caravan/model/ports.h"

namespace caravan {

/// Two all-reduces per chunk: the row maxima, then the rescaled sums packed with the targets' logits (0 on
/// the ranks that do not have the target). The ranks end with the same bits. Shards may be uneven, and empty
/// on some ranks. Collective over `tp`, which outlives this.
class ShardedVocab final : public VocabReduce {
 public:
  /// `vocab_begin` is the first column held here.
  ShardedVocab(Communicator& tp, std::int64_t vocab_begin) : tp_(tp), vocab_begin_(vocab_begin) {}
  bool is_whole() const override { return tp_.size() == 1; }
  std::int64_t vocab_begin() const override { return vocab_begin_; }
  void reduce(Context& ctx, const TensorView& row_max, const TensorView& row_sum,
              const TensorView& target_logit) const override;

 private:
  Communicator& tp_;
  std::int64_t vocab_begin_;
};

}  // namespace caravan

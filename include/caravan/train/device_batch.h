// Batches on their way from the loader (host vectors) to the backend's memory.
#pragma once

#include "caravan/backend/backend.h"
#include "caravan/data/batch.h"
#include "caravan/model/token_batch.h"

namespace caravan {

/// Whether tokens know their rows in the step's batch, which only dropout asks for.
enum class RowNumbers : std::uint8_t { kNone, kKept };

/// kCausal where every row is one document from place 0 on, up to its last target: padding behind it has no
/// gradient, whatever it sees.
MaskKind mask_of(const Batch& batch);

/// Memory for one batch of at most `tokens` tokens.
class DeviceBatch {
 public:
  /// `backend` outlives it.
  DeviceBatch(Backend& backend, std::int64_t tokens, RowNumbers row_numbers = RowNumbers::kNone);
  /// Copies `batch` in, after what is enqueued on `stream`; the views are valid until the next call.
  TokenBatch upload(const Batch& batch, Stream& stream);
  /// Views of a batch of this shape without contents: for planning and generation.
  TokenBatch shape(std::int64_t batch, std::int64_t seq_len) const;
  std::int64_t bytes() const { return memory_.bytes(); }

 private:
  TokenBatch views(const Buffer& memory, std::int64_t batch, std::int64_t seq_len) const;

  Backend& backend_;
  std::int64_t tokens_;
  RowNumbers row_numbers_;
  Buffer memory_;  // six arrays of 4-byte elements, seven with row numbers
  Buffer staged_;  // the same on the host; empty where the host writes to memory_ itself
};

}  // namespace caravan

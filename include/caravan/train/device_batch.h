// Batches on their way from the loader (host vectors) to the backend's memory.
#pragma once

#include "caravan/backend/backend.h"
#include "caravan/data/batch.h"
#include "caravan/model/token_batch.h"
#include "caravan/parallel/context_keys.h"

namespace caravan {

/// Whether tokens know their rows in the step's batch, which only dropout asks for.
enum class RowNumbers : std::uint8_t { kNone, kKept };

/// kCausal where every row is one document from place 0 on, up to its last target: padding behind it has no
/// gradient, whatever it sees.
MaskKind mask_of(const Batch& batch);

/// What a batch's memory has to hold.
struct BatchRoom {
  std::int64_t tokens = 0;  // at most
  RowNumbers row_numbers = RowNumbers::kNone;
  ContextSplit context = {};  // of rows that are divided: the order of all ranks' keys
};

/// Memory for one batch.
class DeviceBatch {
 public:
  /// `backend` outlives it.
  DeviceBatch(Backend& backend, const BatchRoom& room);
  /// Copies `batch` in, after what is enqueued on `stream`; the views are valid until the next call. Of
  /// divided rows it finds the order of keys: nothing on the device is read or waited for.
  TokenBatch upload(const Batch& batch, Stream& stream);
  /// Views of a batch of this shape without contents: for planning and generation.
  TokenBatch shape(std::int64_t batch, std::int64_t seq_len) const;
  std::int64_t bytes() const { return memory_.bytes(); }

 private:
  TokenBatch views(const Buffer& memory, std::int64_t batch, std::int64_t seq_len) const;
  bool is_divided() const { return room_.context.ranks > 1; }
  TensorView key_memory(const Buffer& memory, std::int64_t tokens) const;

  Backend& backend_;
  BatchRoom room_;
  Buffer memory_;  // six arrays of 4-byte elements, seven with row numbers, then the numbers of ContextKeys
  Buffer staged_;  // the same on the host; empty where the host writes to memory_ itself
};

}  // namespace caravan

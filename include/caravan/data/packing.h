// Documents to rows and rows to a batch. A document of n tokens gives n - 1 pairs (input, target); a target
// never belongs to another document than its input. Padding exists only in the finished batch and is known by
// length.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "caravan/data/batch.h"

namespace caravan {

/// One row without padding: as many inputs as targets as document starts, one document after the other.
struct TokenRow {
  std::vector<std::int32_t> inputs;
  std::vector<std::int32_t> targets;
  std::vector<std::int32_t> document_start;  // place in the row where the token's document begins

  std::int64_t length() const { return static_cast<std::int64_t>(inputs.size()); }
  /// Appends inputs ids[:-1] and targets ids[1:]; nothing for fewer than two ids.
  void append_document(std::span<const std::int32_t> ids);
};

/// Puts documents into rows of at most `capacity` pairs, in the order they come: a row is closed by the first
/// document that does not fit (documents are never split).
class RowPacker {
 public:
  explicit RowPacker(std::int64_t capacity);

  /// Adds a document of at most capacity + 1 ids; gives the row that had no room for it, if there was one.
  std::optional<TokenRow> add(std::span<const std::int32_t> ids);
  /// The last row; nothing when it is empty.
  std::optional<TokenRow> finish();

 private:
  std::int64_t capacity_;
  TokenRow row_;
};

/// [rows, longest row] (at least one place), padded on the right: ids and targets `pad_id`, weight 0. In a
/// row of one document the padding counts to it (document_start 0: plain causal attention); after several
/// documents it is a document of its own. At least one row.
Batch make_batch(std::span<const TokenRow> rows, std::int32_t pad_id);

}  // namespace caravan

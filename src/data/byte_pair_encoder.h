// Byte-pair encoding of one piece: the lowest-ranked adjacent pair merges first, the leftmost of equals.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "tokenizer_spec.h"
#include "vocabulary.h"

namespace caravan {

/// What two adjacent tokens become, and how early.
struct Merge {
  static constexpr std::int32_t kNever = std::numeric_limits<std::int32_t>::max();
  std::int32_t rank = kNever;
  std::int32_t id = kNoToken;
};

/// (left id, right id) → Merge, open addressing.
class MergeTable {
 public:
  MergeTable() = default;
  /// The rank of a rule is its index; of two rules for one pair the last counts (as in `tokenizers`).
  explicit MergeTable(const std::vector<MergeRule>& rules);
  Merge find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::int32_t left = kNoToken;
    std::int32_t right = kNoToken;
    Merge merge;
  };
  std::size_t place_of(std::int32_t left, std::int32_t right) const;

  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
};

class BytePairEncoder {
 public:
  /// `spec` is checked: all 256 single bytes are tokens, the ids of its rules are in range.
  explicit BytePairEncoder(const TokenizerSpec& spec);

  /// Appends the ids of `piece` (fewer than 2^32 bytes) to `ids`: the whole piece where that is a token,
  /// else by merging; O(n²) below 100 bytes, O(n log n) above.
  void append(std::string_view piece, std::vector<std::int32_t>& ids) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Merge merge_of(std::int32_t left, std::int32_t right, std::string_view joined) const;
  void append_by_scan(std::string_view piece, std::vector<std::int32_t>& ids) const;
  void append_by_heap(std::string_view piece, std::vector<std::int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<std::int32_t> byte_pairs_;  // [256 · 256] id of two bytes together, or kNoToken
  bool whole_piece_;
  bool ids_are_ranks_;
  MergeTable merges_;
};

}  // namespace caravan

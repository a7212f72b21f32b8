// Parts of the op registry with their own files: attention masks, dropout, and ops that have no derivative.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/reference/op_registry.h"

namespace caravan::reference {

/// `count` ids below `bound` in an irregular order with repetitions.
std::vector<std::int32_t> repeated_ids(std::int64_t count, std::int32_t bound);

struct AttentionCase {
  std::string name{};
  AttentionShape shape{};
  std::vector<std::int32_t> query_index{};
  std::vector<std::int32_t> key_index{};
  std::vector<std::int32_t> document_start{};

  std::string label() const;
};

/// Head ratios 1 to 4, packed documents, rows that see nothing, a cache with unused keys, gaps between
/// queries, queries in no order; small ones, and large ones that cross blocks.
std::vector<AttentionCase> attention_cases();

/// Rates from 0 to nearly 1, widths that end inside a block of random words, in place and not.
void add_dropout(std::vector<OpCase>& cases);

/// AdamW, sums of squares, conversions, random values.
void add_cases_without_derivative(std::vector<OpCase>& cases);

}  // namespace caravan::reference

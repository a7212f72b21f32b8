// One batch of token rows as training and evaluation see it.
#pragma once

#include <cstdint>
#include <vector>

namespace caravan {

/// T = batch · seq_len tokens, row-major. Rows are padded on the right; a padded place has target weight 0
/// and the loader's pad_id, and because attention is causal it changes nothing for the real places before it.
/// A batch may have no valid token at all.
struct Batch {
  std::int64_t batch = 0;                    // B rows
  std::int64_t seq_len = 0;                  // S, the longest row of this batch (at most max_seq_len - 1)
  std::vector<std::int32_t> ids;             // [T]
  std::vector<std::int32_t> targets;         // [T]
  std::vector<float> target_weights;         // [T] 1: counts in the loss, 0: does not
  std::vector<std::int32_t> index;           // [T] place of the token in its row
  std::vector<std::int32_t> document_start;  // [T] place in the row where the token's document begins
  std::int64_t valid_tokens = 0;             // sum of target_weights > 0
  std::int64_t first_row = 0;                // of this part in the step's whole batch
  // Another part of the step's batch has rows that are not plainly causal (MaskKind), if this one has none:
  // all ranks then compute, and record, the same passes.
  bool is_in_general_step = false;
  // [parts · T] of rows whose tokens were divided: index of every part, in their order; else empty.
  std::vector<std::int32_t> index_of_parts;

  std::int64_t n_tokens() const { return batch * seq_len; }
};

}  // namespace caravan

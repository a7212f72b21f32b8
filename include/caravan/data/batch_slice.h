// A rank's part of a batch: some of its rows, some of each row's tokens. Whatever is padded here has target
// weight 0 and sees only itself, so it changes nothing for the real tokens.
#pragma once

#include <cstdint>

#include "caravan/data/batch.h"

namespace caravan {

/// Rows [begin, begin + rows) of `batch`, every row padded to `seq_len` places (at least the batch's own).
/// Rows beyond the batch's end are padding altogether.
Batch take_rows(const Batch& batch, std::int64_t begin, std::int64_t rows, std::int64_t seq_len,
                std::int32_t pad_id);

/// Part `part` of `parts` of every row's tokens, in zig-zag order: a row is cut into 2 · parts pieces, and a
/// part is piece `part` followed by piece 2 · parts − 1 − part, so that under the causal mask every part has
/// the same work (Llama 3 report, 2024, section 3.3.2). Each part knows the index of all of them. seq_len
/// must be a multiple of 2 · parts.
Batch take_tokens(const Batch& batch, std::int64_t part, std::int64_t parts);

}  // namespace caravan

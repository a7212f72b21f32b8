// Whose keys are where when the tokens of rows are divided over ranks, and in which order attention takes
// them. All layers of a micro-batch need the same, so the host finds it once, before the batch is on the
// device: no layer reads a number back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "caravan/backend/context.h"
#include "caravan/config/run_config.h"
#include "caravan/model/token_batch.h"

namespace caravan {

/// The c ranks that rows are divided over, and how they bring each other keys.
struct ContextSplit {
  std::int64_t ranks = 1;
  ContextExchange exchange = ContextExchange::kGather;
};

/// The attention op wants keys in the order of their index; how tokens are divided over ranks is the loader's
/// business. Gathered, the keys and values of a rank's T = B·S tokens follow each other: [c, 2, T] rows.
/// Sorted, all keys precede all values, row by row in the order of their index: [2, B, c·S]. In a ring each
/// rank sorts its own T keys before it hands them on.
struct ContextKeys {
  TensorView index;  // [c·T] int32, sorted row by row; in a ring rank by rank, and each rank's row by row
  TensorView to_sorted;    // [2·c·T], in a ring [T], int32: sorted row i is this row of what there is
  TensorView from_sorted;  // the same shape: the way back
  // What there is has the order of the index already. On shapes what the loader sees to: pieces of a row are
  // in order on a rank, and not from rank to rank.
  bool is_sorted = true;
  std::vector<bool> seen;  // in a ring [c]: whether a query here sees a key of that rank; empty on shapes

  /// True on shapes alone.
  bool is_seen(std::int64_t rank) const { return seen.empty() || seen[static_cast<std::size_t>(rank)]; }
  /// Rows in the order of the ranks to sorted ones, and back. `from` and `to` are different memory.
  void sort(const Context& ctx, const TensorView& from, const TensorView& to) const;
  void unsort(const Context& ctx, const TensorView& from, const TensorView& to) const;
};

/// int32 numbers of ContextKeys for each token of a rank.
std::int64_t key_numbers(const ContextSplit& split);
/// Views of `numbers` [key_numbers · tokens] int32, without contents: for planning, and to be filled.
ContextKeys context_keys(const ContextSplit& split, std::int64_t tokens, const TensorView& numbers);

/// What the host knows of the tokens of a micro-batch, B rows of S on each of c ranks.
struct ContextTokens {
  std::int64_t batch = 0;
  std::int64_t seq_len = 0;
  std::span<const std::int32_t> index_of_ranks;  // [c·T], rank by rank
  std::span<const std::int32_t> index;           // [T] of this rank
  std::span<const std::int32_t> document_start;  // [T] of this rank
};
/// Fills `numbers`, in host memory and of the shape that `keys` has views of, and what `keys` has on the
/// host.
void order_keys(const ContextSplit& split, const ContextTokens& tokens, const TensorView& numbers,
                ContextKeys& keys);

/// Those of a batch whose rows are divided as `split` says.
const ContextKeys& keys_of(const TokenBatch& batch, const ContextSplit& split);

}  // namespace caravan

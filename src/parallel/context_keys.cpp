#include "caravan/parallel/context_keys.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "caravan/core/error.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"

namespace caravan {
namespace {

using Numbers = std::span<const std::int32_t>;

bool is_ring(const ContextSplit& split) {
  return split.exchange == ContextExchange::kRing;
}

/// Entries of to_sorted for each token of a rank.
std::int64_t rows_per_token(const ContextSplit& split) {
  return is_ring(split) ? 1 : 2 * split.ranks;
}

/// The places of a row's tokens in the order of their index, equal ones as they stand.
std::vector<std::int32_t> sorted_places(Numbers row) {
  std::vector<std::int32_t> places(row.size());
  std::iota(places.begin(), places.end(), 0);
  std::stable_sort(places.begin(), places.end(), [&](std::int32_t a, std::int32_t b) {
    return row[static_cast<std::size_t>(a)] < row[static_cast<std::size_t>(b)];
  });
  return places;
}

Numbers part(Numbers all, std::int64_t number, std::int64_t size) {
  return all.subspan(static_cast<std::size_t>(number * size), static_cast<std::size_t>(size));
}

bool is_in_order(Numbers index, std::int64_t rows, std::int64_t length) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const Numbers one = part(index, row, length);
    if (!std::is_sorted(one.begin(), one.end())) {
      return false;
    }
  }
  return true;
}

void order_gathered(const ContextSplit& split, const ContextTokens& tokens, const ContextKeys& to) {
  const std::int64_t seq_len = tokens.seq_len;
  const std::int64_t of_rank = tokens.batch * seq_len;
  const std::int64_t length = split.ranks * seq_len;  // keys of a row
  const std::int64_t all = split.ranks * of_rank;
  auto* const index = to.index.data<std::int32_t>();
  auto* const to_sorted = to.to_sorted.data<std::int32_t>();
  auto* const from_sorted = to.from_sorted.data<std::int32_t>();
  std::vector<std::int32_t> row_index(static_cast<std::size_t>(length));
  for (std::int64_t row = 0; row < tokens.batch; ++row) {
    for (std::int64_t rank = 0; rank < split.ranks; ++rank) {
      const Numbers here = part(part(tokens.index_of_ranks, rank, of_rank), row, seq_len);
      std::copy(here.begin(), here.end(), row_index.begin() + rank * seq_len);
    }
    const std::vector<std::int32_t> places = sorted_places(row_index);
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t place = places[static_cast<std::size_t>(i)];  // rank by rank
      const std::int64_t key = place / seq_len * 2 * of_rank + row * seq_len + place % seq_len;
      const std::int64_t at = row * length + i;
      index[at] = row_index[static_cast<std::size_t>(place)];
      to_sorted[at] = static_cast<std::int32_t>(key);
      to_sorted[all + at] = static_cast<std::int32_t>(key + of_rank);
      from_sorted[key] = static_cast<std::int32_t>(at);
      from_sorted[key + of_rank] = static_cast<std::int32_t>(all + at);
    }
  }
}

/// Whether a query of this rank sees one of the sorted keys [T] of a rank.
bool sees(const ContextTokens& tokens, Numbers keys) {
  for (std::int64_t token = 0; token < std::ssize(keys); ++token) {
    const Numbers row = part(keys, token / tokens.seq_len, tokens.seq_len);
    const auto at = static_cast<std::size_t>(token);
    const auto first = std::lower_bound(row.begin(), row.end(), tokens.document_start[at]);
    if (first != row.end() && *first <= tokens.index[at]) {
      return true;
    }
  }
  return false;
}

void order_ring(const ContextSplit& split, const ContextTokens& tokens, const ContextKeys& to,
                ContextKeys& keys) {
  const std::int64_t length = tokens.seq_len;
  const std::int64_t of_rank = tokens.batch * length;
  auto* const index = to.index.data<std::int32_t>();
  std::copy(tokens.index_of_ranks.begin(), tokens.index_of_ranks.end(), index);
  for (std::int64_t row = 0; row < split.ranks * tokens.batch; ++row) {
    std::sort(index + row * length, index + (row + 1) * length);
  }
  for (std::int64_t row = 0; row < tokens.batch; ++row) {
    const std::vector<std::int32_t> places = sorted_places(part(tokens.index, row, length));
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t token = row * length + places[static_cast<std::size_t>(i)];
      to.to_sorted.data<std::int32_t>()[row * length + i] = static_cast<std::int32_t>(token);
      to.from_sorted.data<std::int32_t>()[token] = static_cast<std::int32_t>(row * length + i);
    }
  }
  keys.seen.clear();
  for (std::int64_t rank = 0; rank < split.ranks; ++rank) {
    keys.seen.push_back(sees(tokens, part({index, tokens.index_of_ranks.size()}, rank, of_rank)));
  }
}

/// to[i] = from[ids[i]], rows of equal length.
void take_rows(const Context& ctx, const TensorView& from, const TensorView& ids, const TensorView& to) {
  // An embedding is a table whose rows are taken by number.
  embedding_forward(ctx, {.weight = from, .ids = ids, .y = to});
}

}  // namespace

void ContextKeys::sort(const Context& ctx, const TensorView& from, const TensorView& to) const {
  if (is_sorted) {
    copy(ctx, {.from = from, .to = to});
  } else {
    take_rows(ctx, from, to_sorted, to);
  }
}

void ContextKeys::unsort(const Context& ctx, const TensorView& from, const TensorView& to) const {
  if (is_sorted) {
    copy(ctx, {.from = from, .to = to});
  } else {
    take_rows(ctx, from, from_sorted, to);
  }
}

std::int64_t key_numbers(const ContextSplit& split) {
  return split.ranks + 2 * rows_per_token(split);
}

ContextKeys context_keys(const ContextSplit& split, std::int64_t tokens, const TensorView& numbers) {
  const std::int64_t keys = split.ranks * tokens;
  const std::int64_t rows = rows_per_token(split) * tokens;
  CARAVAN_CHECK(rows <= std::numeric_limits<std::int32_t>::max(), "{} keys of {} ranks", tokens, split.ranks);
  return {.index = numbers.rows(0, keys),
          .to_sorted = numbers.rows(keys, keys + rows),
          .from_sorted = numbers.rows(keys + rows, keys + 2 * rows),
          .is_sorted = is_ring(split) || split.ranks == 1,
          .seen = {}};
}

void order_keys(const ContextSplit& split, const ContextTokens& tokens, const TensorView& numbers,
                ContextKeys& keys) {
  const std::int64_t of_rank = tokens.batch * tokens.seq_len;
  CARAVAN_CHECK(std::ssize(tokens.index_of_ranks) == split.ranks * of_rank &&
                    std::ssize(tokens.index) == of_rank && std::ssize(tokens.document_start) == of_rank,
                "{} tokens on each of {} ranks, {} known", of_rank, split.ranks,
                tokens.index_of_ranks.size());
  const ContextKeys on_host = context_keys(split, of_rank, numbers);
  const bool is_own_sorted = is_in_order(tokens.index, tokens.batch, tokens.seq_len);
  if (is_ring(split)) {
    order_ring(split, tokens, on_host, keys);
    keys.is_sorted = is_own_sorted;
  } else {
    order_gathered(split, tokens, on_host);
    keys.is_sorted = split.ranks == 1 && is_own_sorted;
  }
}

const ContextKeys& keys_of(const TokenBatch& batch, const ContextSplit& split) {
  CARAVAN_CHECK(batch.context != nullptr, "a batch of {} tokens without the order of all ranks' keys",
                batch.n_tokens());
  const ContextKeys& keys = *batch.context;
  CARAVAN_CHECK(keys.index.numel() == split.ranks * batch.n_tokens() &&
                    keys.to_sorted.numel() == rows_per_token(split) * batch.n_tokens(),
                "keys {} in order {} for {} tokens on each of {} ranks", keys.index.str(),
                keys.to_sorted.str(), batch.n_tokens(), split.ranks);
  return keys;
}

}  // namespace caravan

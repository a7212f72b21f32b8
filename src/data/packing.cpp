#include "caravan/data/packing.h"

#include <algorithm>
#include <utility>

#include "caravan/core/error.h"
#include "caravan/core/narrow.h"

namespace caravan {

void TokenRow::append_document(std::span<const std::int32_t> ids) {
  if (ids.size() < 2) {
    return;
  }
  const auto start = narrow<std::int32_t>(inputs.size());
  inputs.insert(inputs.end(), ids.begin(), ids.end() - 1);
  targets.insert(targets.end(), ids.begin() + 1, ids.end());
  document_start.insert(document_start.end(), ids.size() - 1, start);
}

RowPacker::RowPacker(std::int64_t capacity) : capacity_(capacity) {
  CARAVAN_CHECK(capacity > 0, "rows of {} places", capacity);
}

std::optional<TokenRow> RowPacker::add(std::span<const std::int32_t> ids) {
  const auto pairs = static_cast<std::int64_t>(ids.size()) - 1;
  CARAVAN_CHECK(pairs <= capacity_, "a document of {} pairs for rows of {}", pairs, capacity_);
  std::optional<TokenRow> full;
  if (row_.length() + pairs > capacity_) {
    full = finish();
  }
  row_.append_document(ids);
  return full;
}

std::optional<TokenRow> RowPacker::finish() {
  if (row_.length() == 0) {
    return std::nullopt;
  }
  return std::exchange(row_, {});
}

Batch make_batch(std::span<const TokenRow> rows, std::int32_t pad_id) {
  CARAVAN_CHECK(!rows.empty(), "a batch without rows");
  Batch batch;
  batch.batch = static_cast<std::int64_t>(rows.size());
  batch.seq_len = 1;
  for (const TokenRow& row : rows) {
    batch.seq_len = std::max(batch.seq_len, row.length());
    batch.valid_tokens += row.length();
  }
  const auto tokens = static_cast<std::size_t>(batch.n_tokens());
  const auto seq_len = static_cast<std::size_t>(batch.seq_len);
  batch.ids.assign(tokens, pad_id);
  batch.targets.assign(tokens, pad_id);
  batch.target_weights.assign(tokens, 0.0F);
  batch.index.resize(tokens);
  batch.document_start.resize(tokens);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const TokenRow& row = rows[r];
    const std::size_t base = r * seq_len;
    const auto length = static_cast<std::size_t>(row.length());
    std::copy(row.inputs.begin(), row.inputs.end(), batch.ids.data() + base);
    std::copy(row.targets.begin(), row.targets.end(), batch.targets.data() + base);
    std::fill_n(batch.target_weights.data() + base, length, 1.0F);
    std::copy(row.document_start.begin(), row.document_start.end(), batch.document_start.data() + base);
    const bool is_one_document = length == 0 || row.document_start.back() == 0;
    std::fill(batch.document_start.data() + base + length, batch.document_start.data() + base + seq_len,
              is_one_document ? 0 : narrow<std::int32_t>(length));
    for (std::size_t place = 0; place < seq_len; ++place) {
      batch.index[base + place] = static_cast<std::int32_t>(place);
    }
  }
  return batch;
}

}  // namespace caravan

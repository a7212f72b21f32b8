#include "caravan/data/batch_slice.h"

#include <algorithm>

#include "caravan/core/error.h"

namespace caravan {
namespace {

void count_valid(Batch& batch) {
  batch.valid_tokens = std::count_if(batch.target_weights.begin(), batch.target_weights.end(),
                                     [](float weight) { return weight > 0.0F; });
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from, std::int64_t begin, std::int64_t count) {
  const auto first = from.begin() + static_cast<std::ptrdiff_t>(begin);
  to.insert(to.end(), first, first + static_cast<std::ptrdiff_t>(count));
}

void append_tokens(Batch& to, const Batch& from, std::int64_t begin, std::int64_t count) {
  append(to.ids, from.ids, begin, count);
  append(to.targets, from.targets, begin, count);
  append(to.target_weights, from.target_weights, begin, count);
  append(to.index, from.index, begin, count);
  append(to.document_start, from.document_start, begin, count);
}

void append_padding(Batch& to, std::int64_t first_place, std::int64_t count, std::int32_t pad_id) {
  for (std::int64_t place = first_place; place < first_place + count; ++place) {
    to.ids.push_back(pad_id);
    to.targets.push_back(pad_id);
    to.target_weights.push_back(0.0F);
    to.index.push_back(static_cast<std::int32_t>(place));
    to.document_start.push_back(static_cast<std::int32_t>(place));
  }
}

}  // namespace

Batch take_rows(const Batch& batch, std::int64_t begin, std::int64_t rows, std::int64_t seq_len,
                std::int32_t pad_id) {
  CARAVAN_CHECK(begin >= 0 && rows >= 0 && seq_len >= batch.seq_len, "rows {} + {}, {} places for {}", begin,
                rows, seq_len, batch.seq_len);
  Batch part;
  part.batch = rows;
  part.seq_len = seq_len;
  part.first_row = batch.first_row + begin;
  for (std::int64_t row = begin; row < begin + rows; ++row) {
    const std::int64_t real = row < batch.batch ? batch.seq_len : 0;
    append_tokens(part, batch, real > 0 ? row * batch.seq_len : 0, real);
    append_padding(part, real, seq_len - real, pad_id);
  }
  count_valid(part);
  return part;
}

Batch take_tokens(const Batch& batch, std::int64_t part, std::int64_t parts) {
  if (parts == 1) {
    return batch;
  }
  CARAVAN_CHECK(batch.seq_len % (2 * parts) == 0 && part >= 0 && part < parts, "part {} of {} of {} tokens",
                part, parts, batch.seq_len);
  const std::int64_t piece = batch.seq_len / (2 * parts);
  Batch result;
  result.batch = batch.batch;
  result.seq_len = 2 * piece;
  result.first_row = batch.first_row;
  for (std::int64_t row = 0; row < batch.batch; ++row) {
    append_tokens(result, batch, row * batch.seq_len + part * piece, piece);
    append_tokens(result, batch, row * batch.seq_len + (2 * parts - 1 - part) * piece, piece);
  }
  for (std::int64_t other = 0; other < parts; ++other) {
    for (std::int64_t row = 0; row < batch.batch; ++row) {
      append(result.index_of_parts, batch.index, row * batch.seq_len + other * piece, piece);
      append(result.index_of_parts, batch.index, row * batch.seq_len + (2 * parts - 1 - other) * piece,
             piece);
    }
  }
  count_valid(result);
  return result;
}

}  // namespace caravan

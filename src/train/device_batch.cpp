#include "caravan/train/device_batch.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "caravan/core/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kArrays = 6;
constexpr std::int64_t kItem = 4;
static_assert(sizeof(std::int32_t) == kItem && sizeof(float) == kItem);

/// Arrays of one element per token.
std::int64_t arrays_of(const BatchRoom& room) {
  return kArrays + (room.row_numbers == RowNumbers::kKept ? 1 : 0);
}

std::int64_t bytes_of(const BatchRoom& room) {
  const std::int64_t for_keys = room.context.ranks > 1 ? key_numbers(room.context) : 0;
  return (arrays_of(room) + for_keys) * room.tokens * kItem;
}

template <class T>
void fill(const TensorView& view, const std::vector<T>& values) {
  CARAVAN_CHECK(static_cast<std::int64_t>(values.size()) == view.numel(), "batch of {} for {}", values.size(),
                view.str());
  std::memcpy(view.data<T>(), values.data(), values.size() * sizeof(T));
}

}  // namespace

MaskKind mask_of(const Batch& batch) {
  for (std::int64_t row = 0; row < batch.batch; ++row) {
    bool is_used = false;
    for (std::int64_t place = batch.seq_len; place-- > 0;) {
      const auto t = static_cast<std::size_t>(row * batch.seq_len + place);
      is_used = is_used || batch.target_weights[t] != 0.0F;
      if (is_used && (batch.index[t] != place || batch.document_start[t] != 0)) {
        return MaskKind::kGeneral;
      }
    }
  }
  return MaskKind::kCausal;
}

DeviceBatch::DeviceBatch(Backend& backend, const BatchRoom& room)
    : backend_(backend),
      room_(room),
      memory_(backend.allocate(bytes_of(room))),
      staged_(backend.device().kind == DeviceKind::kCuda ? allocate_host(bytes_of(room)) : Buffer()) {}

TokenBatch DeviceBatch::shape(std::int64_t batch, std::int64_t seq_len) const {
  TokenBatch tokens = views(memory_, batch, seq_len);
  if (is_divided()) {
    tokens.context = std::make_shared<const ContextKeys>(
        context_keys(room_.context, tokens.n_tokens(), key_memory(memory_, tokens.n_tokens())));
  }
  return tokens;
}

TensorView DeviceBatch::key_memory(const Buffer& memory, std::int64_t tokens) const {
  return memory.view(arrays_of(room_) * room_.tokens * kItem, DType::kInt32,
                     {key_numbers(room_.context) * tokens});
}

TokenBatch DeviceBatch::views(const Buffer& memory, std::int64_t batch, std::int64_t seq_len) const {
  const std::int64_t tokens = batch * seq_len;
  CARAVAN_CHECK(tokens <= room_.tokens, "batch of {} tokens, room for {}", tokens, room_.tokens);
  const auto array = [&](std::int64_t which, DType dtype) {
    return memory.view(which * room_.tokens * kItem, dtype, {tokens});
  };
  return {.batch = batch,
          .seq_len = seq_len,
          .ids = array(0, DType::kInt32),
          .targets = array(1, DType::kInt32),
          .target_weights = array(2, DType::kFloat32),
          .index = array(3, DType::kInt32),
          .document_start = array(4, DType::kInt32),
          .positions = array(5, DType::kInt32),
          .rows = room_.row_numbers == RowNumbers::kKept ? array(6, DType::kInt32) : TensorView()};
}

TokenBatch DeviceBatch::upload(const Batch& batch, Stream& stream) {
  const bool is_staged = memory_.device().kind == DeviceKind::kCuda;
  const TokenBatch tokens = views(is_staged ? staged_ : memory_, batch.batch, batch.seq_len);
  fill(tokens.ids, batch.ids);
  fill(tokens.targets, batch.targets);
  fill(tokens.target_weights, batch.target_weights);
  fill(tokens.index, batch.index);
  fill(tokens.document_start, batch.document_start);
  auto* positions = tokens.positions.data<std::int32_t>();
  for (std::size_t t = 0; t < batch.index.size(); ++t) {
    positions[t] = batch.index[t] - batch.document_start[t];
  }
  if (tokens.rows.defined()) {
    auto* rows = tokens.rows.data<std::int32_t>();
    for (std::int64_t t = 0; t < tokens.n_tokens(); ++t) {
      rows[t] = static_cast<std::int32_t>(batch.first_row + t / batch.seq_len);
    }
  }
  TokenBatch uploaded = shape(batch.batch, batch.seq_len);
  CARAVAN_CHECK(is_divided() || batch.index_of_parts.empty(), "parts of rows where rows are whole");
  if (is_divided()) {
    auto keys = std::make_shared<ContextKeys>(*uploaded.context);
    order_keys(room_.context,
               {.batch = batch.batch,
                .seq_len = batch.seq_len,
                .index_of_ranks = batch.index_of_parts,
                .index = batch.index,
                .document_start = batch.document_start},
               key_memory(is_staged ? staged_ : memory_, batch.n_tokens()), *keys);
    uploaded.context = std::move(keys);
  }
  if (is_staged) {
    backend_.send(staged_.data(), memory_.view(0, DType::kUInt8, {memory_.bytes()}), stream);
  }
  uploaded.mask = batch.is_in_general_step ? MaskKind::kGeneral : mask_of(batch);
  uploaded.first_index = batch.index.empty() ? 0 : batch.index.front();
  return uploaded;
}

}  // namespace caravan

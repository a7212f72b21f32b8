#include "context_tokens.h"

#include <algorithm>
#include <numeric>

#include "caravan/backend/device_memory.h"
#include "caravan/ops/embedding.h"

namespace caravan {

std::vector<std::int32_t> host_numbers(const TensorView& view) {
  if (view.raw() == nullptr) {
    return {};
  }
  std::vector<std::int32_t> values(static_cast<std::size_t>(view.numel()));
  copy_to_host(view, values.data());
  return values;
}

TensorView to_scratch(const Context& ctx, const char* what, const std::vector<std::int32_t>& values) {
  const TensorView view =
      ctx.scratch.allocate(what, DType::kInt32, {static_cast<std::int64_t>(values.size())});
  copy_from_host(values.data(), view);
  return view;
}

std::vector<std::int32_t> sorted_places(const std::vector<std::int32_t>& index, std::int64_t rows,
                                        std::int64_t length) {
  std::vector<std::int32_t> places(index.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto begin = places.begin() + row * length;
    const auto* of_row = index.data() + row * length;
    std::iota(begin, begin + length, 0);
    std::stable_sort(begin, begin + length,
                     [&](std::int32_t a, std::int32_t b) { return of_row[a] < of_row[b]; });
  }
  return places;
}

bool is_in_order(const std::vector<std::int32_t>& index, std::int64_t rows, std::int64_t length) {
  for (std::int64_t row = 0; row < rows && !index.empty(); ++row) {
    const auto begin = index.begin() + row * length;
    if (!std::is_sorted(begin, begin + length)) {
      return false;
    }
  }
  return true;
}

bool is_alone(const Communicator& cp, const TokenBatch& batch) {
  return cp.size() == 1 && is_in_order(host_numbers(batch.index), batch.batch, batch.seq_len);
}

void take_rows(const Context& ctx, const TensorView& from, const TensorView& ids, const TensorView& to) {
  // An embedding is a table whose rows are taken by number.
  embedding_forward(ctx, {.weight = from, .ids = ids, .y = to});
}

}  // namespace caravan

// Rows of a table by index, and the scatter of their gradients.
#pragma once

#include <algorithm>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// Rows of the whole table of which `weight` is a part.
inline std::int64_t table_rows(const TensorView& weight, std::int64_t vocab_size) {
  return vocab_size > 0 ? vocab_size : weight.dim(0);
}

/// Every id is a row of the whole table; throws InternalError else.
inline void check_ids(const TensorView& ids, std::int64_t vocab_size) {
  for (const std::int32_t id : elements<std::int32_t>(ids)) {
    CARAVAN_CHECK(id >= 0 && id < vocab_size, "token id {} is not a row of the embedding, which has {} rows",
                  id, vocab_size);
  }
}

/// y[t] = weight[ids[t] − vocab_begin], zeros outside
template <class T>
void embedding_forward(const EmbeddingForwardArgs& args) {
  check_ids(args.ids, table_rows(args.weight, args.vocab_size));
  const auto width = static_cast<std::size_t>(args.weight.dim(1));
  const auto weight = elements<T>(args.weight);
  const auto ids = elements<std::int32_t>(args.ids);
  const auto y = elements<T>(args.y);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const auto out = y.subspan(t * width, width);
    const std::int64_t local = ids[t] - args.vocab_begin;
    if (local < 0 || local >= args.weight.dim(0)) {
      std::fill(out.begin(), out.end(), T{});
      continue;
    }
    const auto row = weight.subspan(static_cast<std::size_t>(local) * width, width);
    std::copy(row.begin(), row.end(), out.begin());
  }
}

/// dweight[ids[t] − vocab_begin] += dy[t], nothing outside
template <class T>
void embedding_backward(const EmbeddingBackwardArgs& args) {
  check_ids(args.ids, table_rows(args.dweight, args.vocab_size));
  const auto width = static_cast<std::size_t>(args.dweight.dim(1));
  const auto dy = elements<T>(args.dy);
  const auto ids = elements<std::int32_t>(args.ids);
  const auto dweight = elements<T>(args.dweight);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const std::int64_t local = ids[t] - args.vocab_begin;
    if (local < 0 || local >= args.dweight.dim(0)) {
      continue;
    }
    for (std::size_t d = 0; d < width; ++d) {
      dweight[static_cast<std::size_t>(local) * width + d] += dy[t * width + d];
    }
  }
}

}  // namespace caravan::reference

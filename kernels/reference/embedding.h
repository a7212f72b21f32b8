// Rows of a table by index, and the scatter of their gradients.
#pragma once

#include <algorithm>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// Every id is a row of the table; throws InternalError else.
inline void check_ids(const TensorView& ids, std::int64_t vocab_size) {
  for (const std::int32_t id : elements<std::int32_t>(ids)) {
    CARAVAN_CHECK(id >= 0 && id < vocab_size, "token id {} is not a row of the embedding, which has {} rows",
                  id, vocab_size);
  }
}

/// y[t] = weight[ids[t]]
template <class T>
void embedding_forward(const EmbeddingForwardArgs& args) {
  check_ids(args.ids, args.weight.dim(0));
  const auto width = static_cast<std::size_t>(args.weight.dim(1));
  const auto weight = elements<T>(args.weight);
  const auto ids = elements<std::int32_t>(args.ids);
  const auto y = elements<T>(args.y);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const auto row = weight.subspan(static_cast<std::size_t>(ids[t]) * width, width);
    std::copy(row.begin(), row.end(), y.subspan(t * width, width).begin());
  }
}

/// dweight[ids[t]] += dy[t]
template <class T>
void embedding_backward(const EmbeddingBackwardArgs& args) {
  check_ids(args.ids, args.dweight.dim(0));
  const auto width = static_cast<std::size_t>(args.dweight.dim(1));
  const auto dy = elements<T>(args.dy);
  const auto ids = elements<std::int32_t>(args.ids);
  const auto dweight = elements<T>(args.dweight);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    for (std::size_t d = 0; d < width; ++d) {
      dweight[static_cast<std::size_t>(ids[t]) * width + d] += dy[t * width + d];
    }
  }
}

}  // namespace caravan::reference

#include "top_tokens.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <numeric>

namespace caravan {
namespace {

/// The ids of the k largest of `count` logits, in order of id.
template <class T>
std::vector<std::int64_t> largest(const T* logits, std::int64_t count, std::int64_t k) {
  const auto rank = [&](std::int64_t id) {
    const double logit = to_double(logits[id]);
    return std::isnan(logit) ? -std::numeric_limits<double>::infinity() : logit;
  };
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(k);
  std::partial_sort(ids.begin(), end, ids.end(), [&](std::int64_t a, std::int64_t b) {
    return rank(a) > rank(b) || (rank(a) == rank(b) && a < b);
  });
  ids.erase(end, ids.end());
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

TopTokens::TopTokens(const TensorView& expected, const Batch& batch) : expected_(expected), batch_(batch) {
  bytes_.assign(static_cast<std::size_t>(expected.bytes()), std::byte{0xff});  // all bits set: no number
  found_ = TensorView(bytes_.data(), expected.dtype(), expected.shape());
}

void TopTokens::place(const MatrixPart& part) {
  const auto item = static_cast<std::int64_t>(dtype_bytes(found_.dtype()));
  const std::int64_t columns = part.values.dim(1);
  const auto* from = static_cast<const std::byte*>(part.values.raw());
  for (const std::int64_t row : part.rows) {
    if (row != MatrixPart::kNoRow && columns > 0) {
      std::memcpy(bytes_.data() + (row * found_.dim(1) + part.first_column) * item, from,
                  static_cast<std::size_t>(columns * item));
    }
    from += columns * item;
  }
}

template <class T>
std::int64_t TopTokens::shared(std::int64_t token, std::int64_t k) const {
  const std::int64_t vocab = expected_.dim(1);
  const auto ours = largest(found_.data<T>() + token * vocab, vocab, k);
  const auto theirs = largest(expected_.data<T>() + token * vocab, vocab, k);
  std::vector<std::int64_t> both;
  std::set_intersection(ours.begin(), ours.end(), theirs.begin(), theirs.end(), std::back_inserter(both));
  return static_cast<std::int64_t>(both.size());
}

double TopTokens::agreement(std::int64_t k) const {
  std::int64_t agreed = 0;
  std::int64_t tokens = 0;
  for (std::int64_t token = 0; token < batch_.n_tokens(); ++token) {
    if (batch_.target_weights[static_cast<std::size_t>(token)] > 0.0F) {
      agreed += expected_.dtype() == DType::kFloat64    ? shared<double>(token, k)
                : expected_.dtype() == DType::kBFloat16 ? shared<BFloat16>(token, k)
                                                        : shared<float>(token, k);
      ++tokens;
    }
  }
  return tokens == 0 ? 1.0 : static_cast<double>(agreed) / static_cast<double>(tokens * k);
}

}  // namespace caravan

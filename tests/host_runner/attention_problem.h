// The tensors of one attention problem, forward and backward, for the tests of the attention kernels.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "host_runner/tensors.h"

namespace caravan::test {

enum class Mask : std::uint8_t {
  kCausal,     // one document
  kDocuments,  // documents of AttentionCase::document_len tokens in a row
  kLater,      // keys of an earlier part of the row, some queries see nothing, queries in reverse order
  kBefore,     // a ring's step: all keys come before all queries
  kBehind,     // a ring's step: all keys come after all queries, none is seen
  kZigZag,     // queries of the first and of the last quarter of a row of 2 · query_len keys
};

struct AttentionCase {
  AttentionShape shape;
  Mask mask = Mask::kCausal;
  std::int64_t offset = 0;  // of every tensor, in elements
  std::int32_t document_len = 17;
};

inline AttentionShape attention_shape(std::int64_t batch, std::int64_t query_len, std::int64_t key_len,
                                      std::int64_t n_heads, std::int64_t n_kv_heads, std::int64_t head_dim) {
  return {.batch = batch,
          .query_len = query_len,
          .key_len = key_len,
          .n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .scale = 1.0 / std::sqrt(static_cast<double>(head_dim))};
}

/// Sees keys [document_start, query_index].
struct QueryPlace {
  std::int32_t query_index;
  std::int32_t document_start;
};

/// Of query i of a row.
inline QueryPlace query_place(const AttentionCase& c, std::int32_t i) {
  const auto query_len = static_cast<std::int32_t>(c.shape.query_len);
  const auto key_len = static_cast<std::int32_t>(c.shape.key_len);
  switch (c.mask) {
    case Mask::kCausal:
    case Mask::kBehind:
      return {i, 0};
    case Mask::kDocuments:
      return {i, i / c.document_len * c.document_len};
    case Mask::kLater:
      return {query_len - i, i % 5 == 0 ? query_len - i + 1 : 0};
    case Mask::kBefore:
      return {key_len + i, 0};
    case Mask::kZigZag:
      return {i < query_len / 2 ? i : query_len + i, 0};
  }
  return {0, 0};
}

struct AttentionTensors {
  AttentionShape shape;
  TestTensor query_index, key_index, document_start, q, k, v, o, lse, d_o, dq, dk, dv;

  AttentionTensors(const AttentionCase& c, DType dtype)
      : shape(c.shape),
        query_index(DType::kInt32, {c.shape.batch * c.shape.query_len}),
        key_index(DType::kInt32, {c.shape.batch * c.shape.key_len}),
        document_start(DType::kInt32, {c.shape.batch * c.shape.query_len}),
        q(dtype, queries(), c.offset),
        k(dtype, keys(), c.offset),
        v(dtype, keys(), c.offset),
        o(dtype, queries(), c.offset),
        lse(DType::kFloat32, {c.shape.n_heads, c.shape.batch * c.shape.query_len}),
        d_o(dtype, queries(), c.offset),
        dq(dtype, queries(), c.offset),
        dk(dtype, keys(), c.offset),
        dv(dtype, keys(), c.offset) {
    std::vector<std::int32_t> query(static_cast<std::size_t>(shape.batch * shape.query_len));
    std::vector<std::int32_t> key(static_cast<std::size_t>(shape.batch * shape.key_len));
    std::vector<std::int32_t> document(query.size());
    for (std::size_t i = 0; i < query.size(); ++i) {
      const QueryPlace place =
          query_place(c, static_cast<std::int32_t>(static_cast<std::int64_t>(i) % shape.query_len));
      query[i] = place.query_index;
      document[i] = place.document_start;
    }
    for (std::size_t j = 0; j < key.size(); ++j) {
      const std::int64_t begin = c.mask == Mask::kLater ? 2 : (c.mask == Mask::kBehind ? shape.query_len : 0);
      key[j] = static_cast<std::int32_t>(static_cast<std::int64_t>(j) % shape.key_len + begin);
    }
    query_index.ints(query);
    key_index.ints(key);
    document_start.ints(document);
    q.random(1, -3.0, 3.0);
    k.random(2, -2.0, 2.0);
    v.random(3);
    d_o.random(4);
  }

  Shape queries() const { return {shape.batch * shape.query_len, shape.n_heads * shape.head_dim}; }
  Shape keys() const { return {shape.batch * shape.key_len, shape.n_kv_heads * shape.head_dim}; }
  AttentionMask mask() { return {query_index.view(), key_index.view(), document_start.view()}; }

  /// `form`: kernel_form or reference_form.
  template <class Form>
  AttentionForwardArgs forward(const Form& form) {
    return {.shape = shape,
            .mask = mask(),
            .q = form(q),
            .k = form(k),
            .v = form(v),
            .o = form(o),
            .lse = form(lse)};
  }
  template <class Form>
  AttentionBackwardArgs backward(const Form& form) {
    return {.shape = shape,
            .mask = mask(),
            .q = form(q),
            .k = form(k),
            .v = form(v),
            .o = form(o),
            .lse = form(lse),
            .d_o = form(d_o),
            .dq = form(dq),
            .dk = form(dk),
            .dv = form(dv)};
  }
};

/// Checks that forward(args) gives NaN, o and lse, to the queries that see one of the keys [begin, end) of
/// every row, which are NaN, and to no other.
template <class Forward>
void check_nan_keys(const AttentionCase& c, DType dtype, std::int64_t begin, std::int64_t end,
                    const Forward& forward) {
  INFO("keys " << begin << " to " << end << " of " << c.shape.key_len << " are NaN, heads of "
               << c.shape.head_dim << ", " << dtype_name(dtype));
  AttentionTensors p(c, dtype);
  const AttentionShape& s = c.shape;
  std::vector<double> keys = p.k.values();
  for (std::int64_t j = 0; j < s.batch * s.key_len; ++j) {
    if (begin <= j % s.key_len && j % s.key_len < end) {
      const std::int64_t at = j * s.n_kv_heads * s.head_dim;
      std::fill_n(keys.begin() + at, s.n_kv_heads * s.head_dim, std::numeric_limits<double>::quiet_NaN());
    }
  }
  p.k.fill(keys);
  forward(p.forward(kernel_form));
  const auto* key_index = p.key_index.view().data<std::int32_t>();
  for (std::int64_t i = 0; i < s.batch * s.query_len; ++i) {
    const std::int32_t first = p.document_start.view().data<std::int32_t>()[i];
    const std::int32_t last = p.query_index.view().data<std::int32_t>()[i];
    const std::int32_t* of_row = key_index + i / s.query_len * s.key_len;
    const bool sees_one = std::any_of(of_row + begin, of_row + end,
                                      [&](std::int32_t index) { return first <= index && index <= last; });
    const bool sees_any = first <= of_row[s.key_len - 1] && of_row[0] <= last && first <= last;
    for (std::int64_t head = 0; head < s.n_heads; ++head) {
      INFO("query " << i << ", head " << head);
      const double lse = p.lse.get(static_cast<std::size_t>(head * s.batch * s.query_len + i));
      CHECK(std::isnan(lse) == sees_one);
      CHECK(std::isinf(lse) == !sees_any);
      for (std::int64_t e = 0; e < s.head_dim; e += s.head_dim - 1) {
        const double o = p.o.get(static_cast<std::size_t>((i * s.n_heads + head) * s.head_dim + e));
        CHECK(std::isnan(o) == sees_one);
        CHECK((o == 0.0) == !sees_any);
      }
    }
  }
}

}  // namespace caravan::test

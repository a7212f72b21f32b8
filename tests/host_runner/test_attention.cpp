// Attention kernels against the reference in double: causal, by documents and positions, grouped heads, odd
// lengths.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/attention.h"

using namespace caravan;
using namespace caravan::test;

namespace {

enum class Mask : std::uint8_t {
  kCausal,     // one document
  kDocuments,  // two documents in a row
  kLater,      // keys of an earlier part of the row, some queries see nothing, queries in reverse order
};

struct Case {
  AttentionShape shape;
  Mask mask = Mask::kCausal;
  std::int64_t offset = 0;
};

AttentionShape shape_of(std::int64_t batch, std::int64_t query_len, std::int64_t key_len,
                        std::int64_t n_heads, std::int64_t n_kv_heads, std::int64_t head_dim) {
  return {.batch = batch,
          .query_len = query_len,
          .key_len = key_len,
          .n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .scale = 1.0 / std::sqrt(static_cast<double>(head_dim))};
}

std::vector<Case> cases() {
  if (host_runner::kThreadSanitizer) {
    return {{shape_of(1, 18, 34, 2, 1, 8), Mask::kDocuments}};
  }
  return {{shape_of(1, 1, 1, 1, 1, 2)},
          {shape_of(2, 19, 19, 4, 2, 16)},
          {shape_of(1, 70, 70, 2, 1, 64), Mask::kDocuments},
          {shape_of(1, 33, 33, 2, 2, 36), Mask::kCausal, 1},
          {shape_of(2, 20, 40, 6, 2, 24), Mask::kLater},
          {shape_of(1, 35, 35, 1, 1, 128)},
          {shape_of(1, 17, 17, 1, 1, 200)}};
}

/// The tensors of one problem, forward and backward.
struct Problem {
  AttentionShape shape;
  TestTensor query_index, key_index, document_start, q, k, v, o, lse, d_o, dq, dk, dv;

  Problem(const Case& c, DType dtype)
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
      const auto at = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % shape.query_len);
      const auto half = static_cast<std::int32_t>(shape.query_len / 2);
      query[i] = c.mask == Mask::kLater ? static_cast<std::int32_t>(shape.query_len) - at : at;
      document[i] = c.mask == Mask::kDocuments && at >= half ? half : 0;
      if (c.mask == Mask::kLater && at % 5 == 0) {
        document[i] = query[i] + 1;  // sees nothing
      }
    }
    for (std::size_t j = 0; j < key.size(); ++j) {
      key[j] = static_cast<std::int32_t>(static_cast<std::int64_t>(j) % shape.key_len) +
               (c.mask == Mask::kLater ? 2 : 0);
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
};

void both(const Case& c, DType dtype) {
  const AttentionShape& s = c.shape;
  INFO("batch " << s.batch << ", " << s.query_len << " queries, " << s.key_len << " keys, heads " << s.n_heads
                << " / " << s.n_kv_heads << " of " << s.head_dim << ", mask " << static_cast<int>(c.mask)
                << ", offset " << c.offset << ", " << dtype_name(dtype));
  Problem p(c, dtype);
  const auto forward = [&](auto form) {
    return AttentionForwardArgs{.shape = s,
                                .mask = p.mask(),
                                .q = form(p.q),
                                .k = form(p.k),
                                .v = form(p.v),
                                .o = form(p.o),
                                .lse = form(p.lse)};
  };
  reference::attention_forward<double>(forward(reference_form));
  cuda::attention_forward(forward(kernel_form), nullptr);
  CHECK(p.o.error() <= tolerance(dtype));
  CHECK(p.lse.error() <= kFloat32Tolerance);
  // The same o and lse in both backward passes: what the forward pass has stored.
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  const auto backward = [&](auto form) {
    return AttentionBackwardArgs{.shape = s,
                                 .mask = p.mask(),
                                 .q = form(p.q),
                                 .k = form(p.k),
                                 .v = form(p.v),
                                 .o = form(p.o),
                                 .lse = form(p.lse),
                                 .d_o = form(p.d_o),
                                 .dq = form(p.dq),
                                 .dk = form(p.dk),
                                 .dv = form(p.dv)};
  };
  reference::attention_backward<double>(backward(reference_form));
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(s));
  cuda::attention_backward(backward(kernel_form), workspace.get(), nullptr);
  CHECK(p.dq.error() <= tolerance(dtype));
  CHECK(p.dk.error() <= tolerance(dtype));
  CHECK(p.dv.error() <= tolerance(dtype));
}

}  // namespace

TEST_CASE("attention forward and backward over masks, groups, lengths and alignments", "[attention]") {
  for_each_schedule([] {
    for (const Case& c : cases()) {
      for (const DType dtype : kStorageTypes) {
        both(c, dtype);
      }
    }
  });
}

TEST_CASE("a query that sees nothing has o = 0 and lse = -inf, and its gradient is 0", "[attention]") {
  const Case c{shape_of(1, 5, 3, 1, 1, 8), Mask::kLater};
  Problem p(c, DType::kFloat32);
  cuda::attention_forward({.shape = c.shape,
                           .mask = p.mask(),
                           .q = p.q.view(),
                           .k = p.k.view(),
                           .v = p.v.view(),
                           .o = p.o.view(),
                           .lse = p.lse.view()},
                          nullptr);
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(c.shape));
  cuda::attention_backward({.shape = c.shape,
                            .mask = p.mask(),
                            .q = p.q.view(),
                            .k = p.k.view(),
                            .v = p.v.view(),
                            .o = p.o.view(),
                            .lse = p.lse.view(),
                            .d_o = p.d_o.view(),
                            .dq = p.dq.view(),
                            .dk = p.dk.view(),
                            .dv = p.dv.view()},
                           workspace.get(), nullptr);
  CHECK(p.lse.get(0) == -std::numeric_limits<double>::infinity());
  for (std::size_t e = 0; e < 8; ++e) {
    CHECK(p.o.get(e) == 0.0);
    CHECK(p.dq.get(e) == 0.0);
  }
}

TEST_CASE("attention_merge joins two parts; a query that saw nothing in one takes the other's bits",
          "[attention]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      constexpr std::int64_t kTokens = 7;
      constexpr std::int64_t kHeads = 3;
      constexpr std::int64_t kHeadDim = 40;
      TestTensor o(dtype, {kTokens, kHeads * kHeadDim}, 1);
      TestTensor o_part(dtype, {kTokens, kHeads * kHeadDim});
      TestTensor lse(DType::kFloat32, {kHeads, kTokens});
      TestTensor lse_part(DType::kFloat32, {kHeads, kTokens});
      o.random(1);
      o_part.random(2);
      lse.random(3, -4.0, 4.0);
      lse_part.random(4, -4.0, 4.0);
      for (auto [tensor, query] : {std::pair{&lse, std::size_t{2}}, {&lse_part, std::size_t{5}}}) {
        std::vector<double> values = tensor->values();
        values[query] = -std::numeric_limits<double>::infinity();
        tensor->fill(values);
      }
      const auto args = [&](auto form) {
        return AttentionMergeArgs{
            .o = form(o), .lse = form(lse), .o_part = form(o_part), .lse_part = form(lse_part)};
      };
      const double kept = o.get(5 * kHeads * kHeadDim);
      reference::attention_merge<double>(args(reference_form), 0, kTokens);
      cuda::attention_merge(args(kernel_form), nullptr);
      CHECK(o.error() <= tolerance(dtype));
      CHECK(lse.error() <= kFloat32Tolerance);
      CHECK(o.get(5 * kHeads * kHeadDim) == kept);
      CHECK(o.get(2 * kHeads * kHeadDim) == o_part.get(2 * kHeads * kHeadDim));
    }
  });
}

TEST_CASE("attention with heads wider than the kernels have is refused", "[attention]") {
  const Case c{shape_of(1, 1, 1, 1, 1, 264)};
  Problem p(c, DType::kFloat32);
  CHECK_THROWS_WITH(cuda::attention_forward({.shape = c.shape,
                                             .mask = p.mask(),
                                             .q = p.q.view(),
                                             .k = p.k.view(),
                                             .v = p.v.view(),
                                             .o = p.o.view(),
                                             .lse = p.lse.view()},
                                            nullptr),
                    Catch::Contains("heads of 264; there is at most 256"));
}

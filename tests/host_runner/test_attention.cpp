// Attention kernels against the reference in double: causal, by documents and positions, grouped heads, odd
// lengths.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "host_runner/attention_problem.h"
#include "host_runner/schedules.h"
#include "kernels/reference/attention.h"

using namespace caravan;
using namespace caravan::test;

namespace {

std::vector<AttentionCase> cases() {
  if (host_runner::kThreadSanitizer) {
    return {{attention_shape(1, 18, 34, 2, 1, 8), Mask::kDocuments}};
  }
  return {{attention_shape(1, 1, 1, 1, 1, 2)},
          {attention_shape(2, 19, 19, 4, 2, 16)},
          {attention_shape(1, 70, 70, 2, 1, 64), Mask::kDocuments, 1},  // misaligned: not on tensor cores
          {attention_shape(1, 33, 33, 2, 2, 36), Mask::kCausal, 1},
          {attention_shape(2, 20, 40, 6, 2, 24), Mask::kLater},
          {attention_shape(1, 35, 35, 1, 1, 128), Mask::kCausal, 1},
          {attention_shape(1, 17, 17, 1, 1, 200)}};
}

void both(const AttentionCase& c, DType dtype) {
  const AttentionShape& s = c.shape;
  INFO("batch " << s.batch << ", " << s.query_len << " queries, " << s.key_len << " keys, heads " << s.n_heads
                << " / " << s.n_kv_heads << " of " << s.head_dim << ", mask " << static_cast<int>(c.mask)
                << ", offset " << c.offset << ", " << dtype_name(dtype));
  AttentionTensors p(c, dtype);
  reference::attention_forward<double>(p.forward(reference_form));
  cuda::attention_forward(p.forward(kernel_form), nullptr);
  CHECK(p.o.error() <= tolerance(dtype));
  CHECK(p.lse.error() <= kFloat32Tolerance);
  // The same o and lse in both backward passes: what the forward pass has stored.
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  reference::attention_backward<double>(p.backward(reference_form));
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(s));
  cuda::attention_backward(p.backward(kernel_form), workspace.get(), nullptr);
  CHECK(p.dq.error() <= tolerance(dtype));
  CHECK(p.dk.error() <= tolerance(dtype));
  CHECK(p.dv.error() <= tolerance(dtype));
}

}  // namespace

TEST_CASE("attention forward and backward over masks, groups, lengths and alignments", "[attention]") {
  for_each_schedule([] {
    for (const AttentionCase& c : cases()) {
      for (const DType dtype : kStorageTypes) {
        both(c, dtype);
      }
    }
  });
}

TEST_CASE("attention over more rows than a grid takes", "[attention]") {
  const SmallGrids grids;
  for (const DType dtype : kStorageTypes) {
    both({attention_shape(3, 7, 9, 2, 1, 8), Mask::kBefore}, dtype);
  }
}

TEST_CASE("a query that sees nothing has o = 0 and lse = -inf, and its gradient is 0", "[attention]") {
  const AttentionCase c{attention_shape(1, 5, 3, 1, 1, 8), Mask::kLater};
  AttentionTensors p(c, DType::kFloat32);
  cuda::attention_forward(p.forward(kernel_form), nullptr);
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(c.shape));
  cuda::attention_backward(p.backward(kernel_form), workspace.get(), nullptr);
  CHECK(p.lse.get(0) == -std::numeric_limits<double>::infinity());
  for (std::size_t e = 0; e < 8; ++e) {
    CHECK(p.o.get(e) == 0.0);
    CHECK(p.dq.get(e) == 0.0);
  }
}

TEST_CASE("NaN keys reach the result of every query that sees one, and of no other", "[attention]") {
  const auto forward = [](const AttentionForwardArgs& args) { cuda::attention_forward(args, nullptr); };
  for_each_schedule([&] {
    for (const DType dtype : kStorageTypes) {
      const AttentionCase later{attention_shape(1, 18, 70, 2, 1, 8), Mask::kLater};
      check_nan_keys(later, dtype, 0, 70, forward);
      check_nan_keys({attention_shape(2, 34, 34, 1, 1, 12)}, dtype, 0, 34, forward);
      check_nan_keys({attention_shape(1, 40, 40, 1, 1, 8)}, dtype, 0, 32, forward);   // a tile, all of it
      check_nan_keys({attention_shape(1, 40, 40, 1, 1, 8)}, dtype, 33, 34, forward);  // one of a later tile
    }
  });
}

namespace {

struct MergeCase {
  DType dtype;
  std::int64_t head_dim;
  std::int64_t offset;  // elements: 1 for views that are not aligned
};

// Heads that eight lanes share, sixteen, and element by element.
std::vector<MergeCase> merge_cases() {
  std::vector<MergeCase> cases;
  for (const DType dtype : kStorageTypes) {
    for (const std::int64_t head_dim : {24, 40, 128}) {
      cases.push_back({dtype, head_dim, 0});
    }
    cases.push_back({dtype, 40, 1});
    cases.push_back({dtype, 33, 0});
  }
  return cases;
}

}  // namespace

TEST_CASE("attention_merge joins two parts; a query that saw nothing in one takes the other's bits",
          "[attention]") {
  for_each_schedule([] {
    for (const MergeCase& c : merge_cases()) {
      const DType dtype = c.dtype;
      const std::int64_t head_dim = c.head_dim;
      constexpr std::int64_t kTokens = 7;
      constexpr std::int64_t kHeads = 3;
      TestTensor o(dtype, {kTokens, kHeads * head_dim}, c.offset);
      TestTensor o_part(dtype, {kTokens, kHeads * head_dim});
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
      const auto token = [&](std::int64_t number) {
        return static_cast<std::size_t>(number * kHeads * head_dim);
      };
      const double kept = o.get(token(5));
      reference::attention_merge<double>(args(reference_form), 0, kTokens);
      cuda::attention_merge(args(kernel_form), nullptr);
      CHECK(o.error() <= tolerance(dtype));
      CHECK(lse.error() <= kFloat32Tolerance);
      CHECK(o.get(token(5)) == kept);
      CHECK(o.get(token(2)) == o_part.get(token(2)));
    }
  });
}

TEST_CASE("attention with heads wider than the kernels have is refused", "[attention]") {
  const AttentionCase c{attention_shape(1, 1, 1, 1, 1, 264)};
  AttentionTensors p(c, DType::kFloat32);
  CHECK_THROWS_WITH(cuda::attention_forward(p.forward(kernel_form), nullptr),
                    Catch::Contains("heads of 264; there is at most 256"));
}

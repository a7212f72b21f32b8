// Attention on tensor cores against the reference in double: tiles cut off at both ends, groups of heads,
// masks that leave tiles out or whole; and what becomes of it when one of its rules is left out.
#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "host_runner/attention_problem.h"
#include "host_runner/schedules.h"
#include "kernels/cuda/attention_tensor_core.h"
#include "kernels/cuda/attention_tensor_core_backward.h"
#include "kernels/cuda/attention_tensor_core_dkdv.h"
#include "kernels/cuda/attention_tensor_core_forward.h"
#include "kernels/reference/attention.h"

using namespace caravan;
using namespace caravan::test;
using caravan::host_runner::kThreadSanitizer;

namespace {

// Weights are rounded to bfloat16 for the second product, by u = 2^-9 of themselves at most, and the result
// once more. o is a mean with weights p >= 0: the first error is at most u · max|v|, the second u · max|o|.
// Here max|v| = 1 and some query sees one key or few, so that max|o| > 0.6: 2.7 u.
constexpr double kForwardTolerance = 2.7 / 512.0;
// dq, dk and dv are sums of signed terms, each off by u of itself at most with random sign. Such a sum is off
// by u / sqrt(3) · sqrt(Σ term²) as a standard deviation; the largest element of a tensor is larger than its
// sqrt(Σ term²) of any element, and 4 standard deviations (of some 10^5 elements) and the last rounding give
// (4 / sqrt(3) + 1) u.
constexpr double kBackwardTolerance = 3.4 / 512.0;

std::vector<AttentionCase> cases() {
  if (kThreadSanitizer) {
    return {{attention_shape(1, 70, 70, 1, 1, 64), Mask::kDocuments, 0, 40},
            {attention_shape(1, 33, 70, 2, 1, 128)}};
  }
  return {{attention_shape(1, 1, 1, 1, 1, 64)},
          {attention_shape(1, 1, 1, 1, 1, 128)},
          {attention_shape(2, 150, 150, 3, 1, 64)},
          {attention_shape(1, 129, 129, 4, 1, 128)},
          {attention_shape(2, 260, 260, 1, 1, 64), Mask::kDocuments, 0, 100},
          {attention_shape(1, 200, 200, 2, 2, 128), Mask::kDocuments, 0, 45},
          {attention_shape(1, 70, 190, 3, 3, 64), Mask::kLater},
          {attention_shape(2, 67, 131, 2, 1, 128), Mask::kLater},
          {attention_shape(1, 130, 128, 2, 1, 64), Mask::kBefore},
          {attention_shape(1, 64, 97, 1, 1, 128), Mask::kBefore},
          {attention_shape(1, 96, 96, 1, 1, 64), Mask::kBehind},
          {attention_shape(1, 96, 96, 1, 1, 128), Mask::kBehind},
          {attention_shape(1, 150, 300, 2, 1, 64), Mask::kZigZag},
          {attention_shape(1, 140, 280, 1, 1, 128), Mask::kZigZag}};
}

/// The kernels' results in the tensors' kernel form, the reference's in the other.
void run_forward(AttentionTensors& p) {
  reference::attention_forward<double>(p.forward(reference_form));
  cuda::attention_forward(p.forward(kernel_form), nullptr);
}
void run_backward(AttentionTensors& p) {
  // The same o and lse in both backward passes: what the forward pass has stored.
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  reference::attention_backward<double>(p.backward(reference_form));
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(p.shape));
  cuda::attention_backward(p.backward(kernel_form), workspace.get(), nullptr);
}

void both(const AttentionCase& c) {
  INFO("batch " << c.shape.batch << ", " << c.shape.query_len << " queries, " << c.shape.key_len
                << " keys, heads " << c.shape.n_heads << " / " << c.shape.n_kv_heads << " of "
                << c.shape.head_dim << ", mask " << static_cast<int>(c.mask));
  AttentionTensors p(c, DType::kBFloat16);
  REQUIRE(cuda::runs_on_tensor_cores(p.forward(kernel_form)));
  REQUIRE(cuda::runs_on_tensor_cores(p.backward(kernel_form)));
  run_forward(p);
  CHECK(p.o.error() <= kForwardTolerance);
  CHECK(p.lse.error() <= kFloat32Tolerance);
  run_backward(p);
  CHECK(p.dq.error() <= kBackwardTolerance);
  CHECK(p.dk.error() <= kBackwardTolerance);
  CHECK(p.dv.error() <= kBackwardTolerance);
}

}  // namespace

TEST_CASE("attention on tensor cores over masks, groups and lengths that cut tiles", "[attention]") {
  for_each_schedule([] {
    for (const AttentionCase& c : cases()) {
      both(c);
    }
  });
}

TEST_CASE("attention on tensor cores over more rows than a grid takes", "[attention]") {
  const SmallGrids grids;
  both({attention_shape(3, 33, 33, 1, 1, 64)});
  both({attention_shape(3, 33, 40, 1, 1, 128), Mask::kBefore});
}

TEST_CASE("the same bits under every schedule, and on a second run", "[attention]") {
  const AttentionCase c{attention_shape(1, 70, 90, 2, 1, 64), Mask::kBefore};
  std::vector<std::vector<unsigned char>> first;
  for_each_schedule([&] {
    AttentionTensors p(c, DType::kBFloat16);
    run_forward(p);
    run_backward(p);
    const std::vector<std::vector<unsigned char>> bits = {p.o.bits(), p.lse.bits(), p.dq.bits(), p.dk.bits(),
                                                          p.dv.bits()};
    first = first.empty() ? bits : first;
    CHECK(bits == first);
  });
}

TEST_CASE("NaN keys reach the result of every query that sees one, and of no other, on tensor cores",
          "[attention]") {
  const auto forward = [](const AttentionForwardArgs& args) {
    REQUIRE(cuda::runs_on_tensor_cores(args));
    cuda::attention_forward(args, nullptr);
  };
  for (const std::int64_t head_dim : {64, 128}) {
    const AttentionCase later{attention_shape(1, 30, 130, 1, 1, head_dim), Mask::kLater};
    check_nan_keys(later, DType::kBFloat16, 0, 130, forward);
    const AttentionCase causal{attention_shape(1, 70, 70, 1, 1, head_dim)};
    check_nan_keys(causal, DType::kBFloat16, 0, 64, forward);
    check_nan_keys(causal, DType::kBFloat16, 66, 67, forward);
  }
}

TEST_CASE("what tensor cores cannot do goes to the other kernels", "[attention]") {
  const auto runs = [](const AttentionCase& c, DType dtype) {
    AttentionTensors p(c, dtype);
    const bool forward = cuda::runs_on_tensor_cores(p.forward(kernel_form));
    CHECK(forward == cuda::runs_on_tensor_cores(p.backward(kernel_form)));
    run_forward(p);
    CHECK(p.o.error() <= tolerance(dtype));
    run_backward(p);
    CHECK(p.dq.error() <= tolerance(dtype));
    return forward;
  };
  CHECK_FALSE(runs({attention_shape(1, 5, 5, 1, 1, 64)}, DType::kFloat32));
  CHECK_FALSE(runs({attention_shape(1, 5, 5, 1, 1, 64), Mask::kCausal, 1}, DType::kBFloat16));
  CHECK_FALSE(runs({attention_shape(1, 5, 5, 1, 1, 96)}, DType::kBFloat16));
  AttentionCase turned{attention_shape(1, 5, 5, 1, 1, 64)};
  turned.shape.scale = -turned.shape.scale;
  CHECK_FALSE(runs(turned, DType::kBFloat16));
}

TEST_CASE("rows with gaps between them are refused, not read wrongly", "[attention]") {
  AttentionTensors p({attention_shape(1, 4, 4, 1, 1, 64)}, DType::kBFloat16);
  TestTensor packed(DType::kBFloat16, {4, 192});
  AttentionForwardArgs args = p.forward(kernel_form);
  args.k = packed.view().slice(1, 64, 128);
  CHECK_THROWS_WITH(cuda::attention_forward(args, nullptr),
                    Catch::Contains("bfloat16[4, 64] has gaps between its rows"));
  AttentionBackwardArgs backward = p.backward(kernel_form);
  backward.dv = packed.view().slice(1, 128, 192);
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(p.shape));
  CHECK_THROWS_WITH(cuda::attention_backward(backward, workspace.get(), nullptr),
                    Catch::Contains("has gaps between its rows"));
}

TEST_CASE("no row of a tile is read in a bank that another one takes", "[attention]") {
  const std::int64_t before = host_runner::bank_conflicts();
  for (const std::int64_t head_dim : {64, 128}) {
    AttentionTensors p({attention_shape(1, 40, 40, 1, 1, head_dim)}, DType::kBFloat16);
    run_forward(p);
    run_backward(p);
  }
  CHECK(host_runner::bank_conflicts() == before);
}

// ---- a rule left out. Under ThreadSanitizer the barriers only: the other faults are no question of order.

namespace {

constexpr int kFaultyLen = 150;  // several tiles, so that slots are filled again

/// Tiles without one of their rules.
template <class Tiles>
struct NoWait : Tiles {
  template <int kGroups>
  static void wait() {}
};
template <class Tiles>
struct WeakWait : Tiles {
  template <int kGroups>
  static void wait() {
    cuda::cp_async_wait<kGroups + 1>();
  }
};
/// ThreadSanitizer's first reports end the launch, else there would be thousands.
struct RaceFound {};
int races_before = 0;
template <class Tiles>
struct NoBarrier : Tiles {
  static void barrier() {
    if (host_runner::race_reports() > races_before) {
      throw RaceFound{};
    }
  }
};
/// Chunks 0 and 8 of a row in one place.
template <class Tiles>
struct SharedPlace : Tiles {
  static int place(int row, int chunk) { return (chunk ^ row) % (Tiles::kHeadDim / 16); }
};
/// Right, but every row in the same banks.
template <class Tiles>
struct Unturned : Tiles {
  static int place(int /*row*/, int chunk) { return chunk; }
};

AttentionCase faulty_case(std::int64_t head_dim) {
  const std::int64_t length = kThreadSanitizer ? 100 : kFaultyLen;
  return {attention_shape(1, length, length, 1, 1, head_dim), Mask::kBefore};
}

dim3 blocks_of(std::int64_t length, int tile) {
  return {static_cast<unsigned>((length + tile - 1) / tile)};
}

template <class C>
bool forward_is_right() {
  AttentionTensors p(faulty_case(C::kHeadDim), DType::kBFloat16);
  const auto args = p.forward(kernel_form);
  reference::attention_forward<double>(p.forward(reference_form));
  cuda::launch("faulty", cuda::attention_forward_tensor_core_kernel<C>,
               {.grid = blocks_of(args.shape.query_len, C::kQueries),
                .block = C::kThreads,
                .shared_bytes = C::kSharedBytes},
               cuda::attention_problem(args.shape, args.mask, args.lse), args.q.data<BFloat16>(),
               args.k.data<BFloat16>(), args.v.data<BFloat16>(), args.o.data<BFloat16>(),
               args.lse.data<float>());
  return p.o.error() <= kForwardTolerance;
}

/// The prepare kernel as it is, then dq with tiles ForQueries and dk, dv with tiles ForKeys.
template <class ForQueries, class ForKeys>
bool backward_is_right() {
  AttentionTensors p(faulty_case(ForQueries::kHeadDim), DType::kBFloat16);
  run_forward(p);
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  const auto args = p.backward(kernel_form);
  reference::attention_backward<double>(p.backward(reference_form));
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(args.shape));
  const cuda::BackwardScratch scratch = cuda::backward_scratch(args.shape, workspace.get());
  const cuda::AttentionProblem problem = cuda::attention_problem(args.shape, args.mask, args.lse);
  const cuda::BackwardInputs inputs{.q = args.q.data<BFloat16>(),
                                    .k = args.k.data<BFloat16>(),
                                    .v = args.v.data<BFloat16>(),
                                    .d_o = args.d_o.data<BFloat16>()};
  cuda::launch("prepare", cuda::attention_prepare_kernel<cuda::KeyGradientTiles<ForKeys::kHeadDim>>,
               {.grid = blocks_of(scratch.padded_len, ForKeys::kQueries), .block = ForKeys::kThreads},
               problem, args.o.data<BFloat16>(), args.d_o.data<BFloat16>(), args.lse.data<float>(), scratch);
  cuda::launch("faulty_dq", cuda::attention_dq_tensor_core_kernel<ForQueries>,
               {.grid = blocks_of(args.shape.query_len, ForQueries::kQueries),
                .block = ForQueries::kThreads,
                .shared_bytes = ForQueries::kSharedBytes},
               problem, inputs, scratch, args.dq.data<BFloat16>());
  cuda::launch("faulty_dkdv", cuda::attention_dkdv_tensor_core_kernel<ForKeys>,
               {.grid = blocks_of(args.shape.key_len, ForKeys::kKeys),
                .block = ForKeys::kThreads,
                .shared_bytes = ForKeys::kSharedBytes},
               problem, inputs, scratch, args.dk.data<BFloat16>(), args.dv.data<BFloat16>());
  return p.dq.error() <= kBackwardTolerance && p.dk.error() <= kBackwardTolerance &&
         p.dv.error() <= kBackwardTolerance;
}

template <template <class> class Fault, int kHeadDim, class Expect>
void for_each_kernel_of(const Expect& expect) {
  using Forward = cuda::ForwardTiles<kHeadDim>;
  using ForQueries = cuda::QueryGradientTiles<kHeadDim>;
  using ForKeys = cuda::KeyGradientTiles<kHeadDim>;
  {
    INFO("forward, heads of " << kHeadDim);
    expect([] { return forward_is_right<Fault<Forward>>(); });
  }
  {
    INFO("dq, heads of " << kHeadDim);
    expect([] { return backward_is_right<Fault<ForQueries>, ForKeys>(); });
  }
  {
    INFO("dk and dv, heads of " << kHeadDim);
    expect([] { return backward_is_right<ForQueries, Fault<ForKeys>>(); });
  }
}
/// Every kernel with the rule left out that Fault leaves out; sanitizers take too long for all of them.
template <template <class> class Fault, class Expect>
void for_each_kernel(const Expect& expect) {
  for_each_kernel_of<Fault, 64>(expect);
  if (!kThreadSanitizer && !host_runner::kAddressSanitizer) {
    for_each_kernel_of<Fault, 128>(expect);
  }
}

void expect_wrong(bool (*is_right)()) {
  CHECK_FALSE(is_right());
}
void expect_found(bool (*is_right)()) {
  expect_race([&] {
    races_before = host_runner::race_reports();
    try {
      return is_right();
    } catch (const RaceFound&) {
      return false;
    }
  });
}

}  // namespace

TEST_CASE("tiles that were not waited for, or too little, give a wrong result", "[attention][faults]") {
  if (kThreadSanitizer) {
    return;
  }
  for_each_kernel<NoWait>(expect_wrong);
  for_each_kernel<WeakWait>(expect_wrong);
}

TEST_CASE("a missing barrier between the slots of a ring is found", "[attention][faults]") {
  for_each_kernel<NoBarrier>(expect_found);
}

TEST_CASE("two chunks in one place of a tile give a wrong result", "[attention][faults]") {
  if (kThreadSanitizer) {
    return;
  }
  for_each_kernel<SharedPlace>(expect_wrong);
}

TEST_CASE("tiles whose chunks are not turned are right, and their bank conflicts are counted",
          "[attention][faults]") {
  if (kThreadSanitizer) {
    return;
  }
  const auto expect_conflicts = [](bool (*is_right)()) {
    const std::int64_t before = host_runner::bank_conflicts();
    CHECK(is_right());
    CHECK(host_runner::bank_conflicts() > before);
  };
  for_each_kernel<Unturned>(expect_conflicts);
}

// The Hopper attention kernels against the reference in double, executed with the host forms of
// kernels/cuda/hopper/ops.h: masks, groups, lengths that cut tiles, rings that go round; copies that arrive
// as early or as late as they may.
#include <catch2/catch.hpp>
#include <vector>

#include "host_runner/attention_problem.h"
#include "host_runner/schedules.h"
#include "kernels/cuda/hopper/launchers.h"
#include "kernels/reference/attention.h"

using namespace caravan;
using namespace caravan::test;

namespace {

// As of the portable tensor-core kernels (test_attention_tensor_core.cpp), which round at the same places.
constexpr double kForwardTolerance = 2.7 / 512.0;
constexpr double kBackwardTolerance = 3.4 / 512.0;

/// A block of these kernels may have more shared memory than portable ones.
struct HopperLimits {
  std::size_t before = host_runner::set_most_shared_bytes(host_runner::kHopperSharedBytes);
  HopperLimits() = default;
  ~HopperLimits() { host_runner::set_most_shared_bytes(before); }
  HopperLimits(const HopperLimits&) = delete;
  HopperLimits& operator=(const HopperLimits&) = delete;
  HopperLimits(HopperLimits&&) = delete;
  HopperLimits& operator=(HopperLimits&&) = delete;
};

/// Tiles have 128 queries or keys (64 queries for dk and dv); rings have 2 stages for heads of 128 and 4
/// for 64.
std::vector<AttentionCase> cases() {
  return {{attention_shape(1, 1, 1, 1, 1, 64)},
          {attention_shape(2, 150, 150, 2, 1, 64), Mask::kDocuments, 0, 45},
          {attention_shape(1, 70, 300, 3, 3, 64), Mask::kLater},
          {attention_shape(1, 130, 128, 2, 1, 64), Mask::kBefore},
          {attention_shape(1, 129, 129, 2, 1, 128)},
          {attention_shape(1, 10, 650, 1, 1, 128), Mask::kBefore},  // the ring goes round
          {attention_shape(1, 66, 66, 1, 1, 128), Mask::kBehind},
          {attention_shape(1, 140, 280, 1, 1, 128), Mask::kZigZag}};
}

/// The ring of dk and dv goes round, and a tile is whole between two that are cut.
std::vector<AttentionCase> long_cases() {
  return {{attention_shape(1, 400, 130, 1, 1, 128), Mask::kDocuments, 0, 260},
          {attention_shape(1, 390, 390, 1, 1, 64)}};
}

using Forward = void (*)(const AttentionForwardArgs&, cuda::StreamHandle);

void both(const AttentionCase& c, Forward forward) {
  INFO("batch " << c.shape.batch << ", " << c.shape.query_len << " queries, " << c.shape.key_len
                << " keys, heads " << c.shape.n_heads << " / " << c.shape.n_kv_heads << " of "
                << c.shape.head_dim << ", mask " << static_cast<int>(c.mask));
  const HopperLimits limits;
  AttentionTensors p(c, DType::kBFloat16);
  REQUIRE(cuda::hopper::takes(p.forward(kernel_form)));
  REQUIRE(cuda::hopper::takes(p.backward(kernel_form)));
  reference::attention_forward<double>(p.forward(reference_form));
  forward(p.forward(kernel_form), nullptr);
  CHECK(p.o.error() <= kForwardTolerance);
  CHECK(p.lse.error() <= kFloat32Tolerance);
  // The same o and lse in both backward passes: what the forward pass has stored.
  for (TestTensor* stored : {&p.o, &p.lse}) {
    stored->fill(stored->values());
  }
  reference::attention_backward<double>(p.backward(reference_form));
  TestWorkspace workspace(cuda::attention_backward_workspace_bytes(p.shape));
  cuda::hopper::attention_backward(p.backward(kernel_form), workspace.get(), nullptr);
  CHECK(p.dq.error() <= kBackwardTolerance);
  CHECK(p.dk.error() <= kBackwardTolerance);
  CHECK(p.dv.error() <= kBackwardTolerance);
}

}  // namespace

// ThreadSanitizer is told nothing of bulk copies and warpgroup products: it would see races where there are
// none. What they may not do is found by the host forms themselves (test_hopper_ops.cpp).

TEST_CASE("Hopper attention over masks, groups and lengths that cut tiles", "[attention]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  for_each_schedule([] {
    for (const AttentionCase& c : cases()) {
      both(c, cuda::hopper::attention_forward);
    }
  });
}

TEST_CASE("Hopper attention where rings go round", "[attention]") {
  if (host_runner::kThreadSanitizer || host_runner::kAddressSanitizer) {
    return;  // minutes
  }
  for (const host_runner::Options& options : {kSchedules[0], kSchedules[3]}) {
    host_runner::set_options(options);
    for (const AttentionCase& c : long_cases()) {
      both(c, cuda::hopper::attention_forward);
    }
  }
  host_runner::set_options({});
}

TEST_CASE("Hopper attention over more rows than a grid takes", "[attention]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  const SmallGrids grids;
  both({attention_shape(3, 20, 30, 2, 1, 64), Mask::kBefore}, cuda::hopper::attention_forward);
}

TEST_CASE("Hopper attention without overlap gives the same", "[attention]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  for (const AttentionCase& c : {AttentionCase{attention_shape(1, 150, 150, 1, 1, 64)},
                                 AttentionCase{attention_shape(1, 70, 300, 1, 1, 128), Mask::kLater}}) {
    both(c, cuda::hopper::attention_forward_plain);
  }
}

TEST_CASE("NaN keys reach the result of every query that sees one, and of no other, for Hopper",
          "[attention]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  const HopperLimits limits;
  for (const auto& forward : {cuda::hopper::attention_forward, cuda::hopper::attention_forward_plain}) {
    const auto run = [&](const AttentionForwardArgs& args) { forward(args, nullptr); };
    const AttentionCase later{attention_shape(1, 30, 130, 1, 1, 64), Mask::kLater};
    check_nan_keys(later, DType::kBFloat16, 0, 130, run);
    const AttentionCase causal{attention_shape(1, 140, 140, 1, 1, 64)};
    check_nan_keys(causal, DType::kBFloat16, 0, 128, run);
    check_nan_keys(causal, DType::kBFloat16, 130, 131, run);
  }
}

TEST_CASE("Hopper attention gives the same bits under every schedule", "[attention]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  const HopperLimits limits;
  const AttentionCase c{attention_shape(1, 70, 150, 2, 1, 64), Mask::kBefore};
  std::vector<std::vector<unsigned char>> first;
  for_each_schedule([&] {
    AttentionTensors p(c, DType::kBFloat16);
    cuda::hopper::attention_forward(p.forward(kernel_form), nullptr);
    TestWorkspace workspace(cuda::attention_backward_workspace_bytes(p.shape));
    cuda::hopper::attention_backward(p.backward(kernel_form), workspace.get(), nullptr);
    const std::vector<std::vector<unsigned char>> bits = {p.o.bits(), p.lse.bits(), p.dq.bits(), p.dk.bits(),
                                                          p.dv.bits()};
    first = first.empty() ? bits : first;
    CHECK((bits == first));  // without megabytes of numbers in the report
  });
}

TEST_CASE("what the Hopper kernels do not take", "[attention]") {
  const auto takes = [](const AttentionCase& c, DType dtype) {
    AttentionTensors p(c, dtype);
    const bool forward = cuda::hopper::takes(p.forward(kernel_form));
    CHECK(forward == cuda::hopper::takes(p.backward(kernel_form)));
    return forward;
  };
  CHECK(takes({attention_shape(1, 5, 5, 1, 1, 64)}, DType::kBFloat16));
  CHECK_FALSE(takes({attention_shape(1, 5, 5, 1, 1, 64)}, DType::kFloat32));
  CHECK_FALSE(takes({attention_shape(1, 5, 5, 1, 1, 64), Mask::kCausal, 1}, DType::kBFloat16));
  CHECK_FALSE(takes({attention_shape(1, 5, 5, 1, 1, 96)}, DType::kBFloat16));
  CHECK_FALSE(takes({attention_shape(1, 5, 0, 1, 1, 64)}, DType::kBFloat16));
  CHECK_FALSE(takes({attention_shape(0, 5, 5, 1, 1, 64)}, DType::kBFloat16));
  AttentionCase turned{attention_shape(1, 5, 5, 1, 1, 64)};
  turned.shape.scale = -turned.shape.scale;
  CHECK_FALSE(takes(turned, DType::kBFloat16));
}

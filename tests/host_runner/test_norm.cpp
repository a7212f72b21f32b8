// RMSNorm kernels against the reference in double.
#include <catch2/catch.hpp>
#include <vector>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/norm.h"

using namespace caravan;
using namespace caravan::test;

namespace {

struct Case {
  std::int64_t rows;
  std::int64_t width;
  std::int64_t offset;  // elements
};

// Widths of one pack a thread in blocks of one warp and several, of two (2056 float32), odd ones, and those
// beyond what 512 threads hold in two (4608 float32, 8208 of 16 bits).
std::vector<Case> cases() {
  if (host_runner::kThreadSanitizer) {
    return {{3, 264, 0}, {5, 33, 0}};
  }
  return {{1, 1, 0},    {5, 33, 0},   {6, 64, 0},   {6, 64, 1},   {9, 264, 0},
          {3, 1000, 0}, {4, 2056, 0}, {2, 4608, 0}, {2, 8208, 0}, {0, 8, 0}};
}

void forward(const Case& c, DType dtype, bool has_delta) {
  INFO(c.rows << " rows of " << c.width << ", offset " << c.offset << ", " << dtype_name(dtype) << ", delta "
              << has_delta);
  const Shape shape{c.rows, c.width};
  TestTensor x(dtype, shape, c.offset);
  TestTensor delta(dtype, shape, c.offset);
  TestTensor sum(dtype, shape, c.offset);
  TestTensor weight(dtype, {c.width}, c.offset);
  TestTensor y(dtype, shape, c.offset);
  TestTensor rstd(DType::kFloat32, {c.rows});
  x.random(1);
  delta.random(2, -0.5, 0.5);
  weight.random(3, 0.5, 1.5);
  const auto args = [&](auto form) {
    RmsNormForwardArgs result{.x = form(x),
                              .delta = {},
                              .sum = {},
                              .weight = form(weight),
                              .eps = 1e-5,
                              .y = form(y),
                              .rstd = form(rstd)};
    if (has_delta) {
      result.delta = form(delta);
      result.sum = form(sum);
    }
    return result;
  };
  reference::rmsnorm_forward<double>(args(reference_form));
  cuda::rmsnorm_forward(args(kernel_form), nullptr);
  CHECK(sum.error() <= tolerance(dtype));
  if (has_delta) {  // norms are of the sum as it is stored
    x.fill(sum.values());
    reference::rmsnorm_forward<double>({.x = x.reference(),
                                        .delta = {},
                                        .sum = {},
                                        .weight = weight.reference(),
                                        .eps = 1e-5,
                                        .y = y.reference(),
                                        .rstd = rstd.reference()});
  }
  CHECK(y.error() <= tolerance(dtype));
  CHECK(rstd.error() <= kFloat32Tolerance);
}

void backward(const Case& c, DType dtype, DType weight_gradient, bool has_dweight) {
  INFO(c.rows << " rows of " << c.width << ", offset " << c.offset << ", " << dtype_name(dtype)
              << ", dweight " << dtype_name(weight_gradient) << " " << has_dweight);
  const Shape shape{c.rows, c.width};
  TestTensor dy(dtype, shape, c.offset);
  TestTensor x(dtype, shape, c.offset);
  TestTensor weight(dtype, {c.width}, c.offset);
  TestTensor rstd(DType::kFloat32, {c.rows});
  TestTensor dx(dtype, shape, c.offset);
  TestTensor dweight(weight_gradient, {c.width}, c.offset);
  dy.random(4);
  x.random(5, -2.0, 2.0);
  weight.random(6, 0.5, 1.5);
  rstd.random(7, 0.5, 1.2);
  dx.random(8);
  dweight.random(9);
  const auto args = [&](auto form) {
    return RmsNormBackwardArgs{.dy = form(dy),
                               .x = form(x),
                               .weight = form(weight),
                               .rstd = form(rstd),
                               .dx = form(dx),
                               .dweight = has_dweight ? form(dweight) : TensorView()};
  };
  reference::rmsnorm_backward<double>(args(reference_form));
  TestWorkspace workspace(cuda::rmsnorm_backward_workspace_bytes(args(kernel_form)));
  cuda::rmsnorm_backward(args(kernel_form), workspace.get(), nullptr);
  CHECK(dx.error() <= tolerance(dtype));
  CHECK(dweight.error() <= tolerance(weight_gradient));
}

}  // namespace

TEST_CASE("rmsnorm_forward adds the pending delta and norms every row", "[norm]") {
  for_each_schedule([] {
    for (const Case& c : cases()) {
      for (const DType dtype : kStorageTypes) {
        forward(c, dtype, false);
        forward(c, dtype, true);
      }
    }
  });
}

TEST_CASE("rmsnorm_backward adds to the stream's gradient and to the weight's", "[norm]") {
  for_each_schedule([] {
    for (const Case& c : cases()) {
      for (const auto& [dtype, gradient] : kGradientTypes) {
        backward(c, dtype, gradient, true);
      }
      backward(c, DType::kFloat32, DType::kFloat32, false);
    }
  });
}

TEST_CASE("rmsnorm_backward takes several rows per part when there are many", "[norm]") {
  // 264 parts of six rows: a thread's four places in shared memory are used again.
  backward({1400, 8, 0}, DType::kFloat32, DType::kFloat32, true);
  if (host_runner::kThreadSanitizer) {
    return;  // hundreds of blocks of 256 threads are too many fibers
  }
  backward({1400, 64, 0}, DType::kBFloat16, DType::kFloat32, true);
  backward({800, 2056, 0}, DType::kFloat32, DType::kFloat32, true);  // two packs a thread, two places of each
  backward({530, 5, 0}, DType::kFloat32, DType::kFloat32, true);
}

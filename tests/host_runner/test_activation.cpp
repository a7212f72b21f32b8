// SwiGLU kernels against the reference in double.
#include <catch2/catch.hpp>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/activation.h"

using namespace caravan;
using namespace caravan::test;

namespace {

void both(std::int64_t count, std::int64_t offset, DType dtype) {
  INFO(count << " elements, offset " << offset << ", " << dtype_name(dtype));
  const Shape shape{1, count};
  TestTensor gate(dtype, shape, offset);
  TestTensor up(dtype, shape, offset);
  TestTensor h(dtype, shape, offset);
  TestTensor dh(dtype, shape, offset);
  gate.random(1, -9.0, 9.0);
  up.random(2);
  dh.random(3);
  const auto forward = [&](auto form) {
    return SwigluForwardArgs{.gate = form(gate), .up = form(up), .h = form(h)};
  };
  reference::swiglu_forward<double>(forward(reference_form));
  cuda::swiglu_forward(forward(kernel_form), nullptr);
  CHECK(h.error() <= tolerance(dtype));
  // In place of gate and up, as the contract allows.
  const auto backward = [&](auto form) {
    return SwigluBackwardArgs{
        .dh = form(dh), .gate = form(gate), .up = form(up), .dgate = form(gate), .dup = form(up)};
  };
  reference::swiglu_backward<double>(backward(reference_form));
  cuda::swiglu_backward(backward(kernel_form), nullptr);
  CHECK(gate.error() <= tolerance(dtype));
  CHECK(up.error() <= tolerance(dtype));
}

}  // namespace

TEST_CASE("swiglu forward, and backward in place, at any count and alignment", "[activation]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      for (const std::int64_t count : {0, 1, 7, 8, 261, 2048}) {
        both(count, 0, dtype);
        both(count, 1, dtype);
      }
    }
  });
}

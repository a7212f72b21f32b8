// The rotary kernel against the reference in double.
#include <catch2/catch.hpp>
#include <cmath>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/rope.h"

using namespace caravan;
using namespace caravan::test;

namespace {

void rotate(std::int64_t heads, std::int64_t head_dim, std::int64_t offset, DType dtype,
            RopeDirection direction) {
  constexpr std::int64_t kPositions = 11;
  const std::vector<std::int32_t> positions = {0, 3, 10, 3, 1};
  const auto tokens = static_cast<std::int64_t>(positions.size());
  INFO(heads << " heads of " << head_dim << ", offset " << offset << ", " << dtype_name(dtype));
  TestTensor x(dtype, {tokens, heads * head_dim}, offset);
  TestTensor at(DType::kInt32, {tokens});
  TestTensor cosines(DType::kFloat32, {kPositions, head_dim / 2});
  TestTensor sines(DType::kFloat32, {kPositions, head_dim / 2});
  x.random(1);
  at.ints(positions);
  cosines.random(2);
  sines.random(3);
  const auto args = [&](auto form) {
    return RopeArgs{.x = form(x),
                    .positions = form(at),
                    .cos = form(cosines),
                    .sin = form(sines),
                    .head_dim = head_dim,
                    .direction = direction};
  };
  reference::rope<double>(args(reference_form));
  cuda::rope(args(kernel_form), nullptr);
  CHECK(x.error() <= tolerance(dtype));
}

}  // namespace

TEST_CASE("rope rotates the pairs of every head by its token's position, either way", "[rope]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      for (const RopeDirection direction : {RopeDirection::kForward, RopeDirection::kBackward}) {
        rotate(3, 64, 0, dtype, direction);
        rotate(3, 64, 1, dtype, direction);
        rotate(1, 2, 0, dtype, direction);
        rotate(5, 6, 0, dtype, direction);
        rotate(2, 128, 0, dtype, direction);
      }
    }
  });
}

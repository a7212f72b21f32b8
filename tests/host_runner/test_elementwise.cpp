// Adding, scaling, copies and random values against the reference.
#include <catch2/catch.hpp>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/elementwise.h"

using namespace caravan;
using namespace caravan::test;

TEST_CASE("add and scale, in place and not, at any count and alignment", "[elementwise]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      for (const std::int64_t count : {0, 1, 9, 264, 1030}) {
        for (const std::int64_t offset : {0, 1}) {
          INFO(count << " elements, offset " << offset << ", " << dtype_name(dtype));
          TestTensor x(dtype, {count}, offset);
          TestTensor z(dtype, {count}, offset);
          x.random(1);
          z.random(2);
          reference::add<double>({.x = x.reference(), .z = z.reference(), .y = x.reference()});
          cuda::add({.x = x.view(), .z = z.view(), .y = x.view()}, nullptr);
          CHECK(x.error() <= tolerance(dtype));
          reference::scale<double>({.x = z.reference(), .factor = -0.75});
          cuda::scale({.x = z.view(), .factor = -0.75}, nullptr);
          CHECK(z.error() <= tolerance(dtype));
        }
      }
    }
  });
}

TEST_CASE("copy converts as core rounds, contiguous or between strided views", "[elementwise]") {
  for_each_schedule([] {
    for (const DType from_type : kStorageTypes) {
      for (const DType to_type : kStorageTypes) {
        for (const std::int64_t offset : {0, 1}) {
          INFO(dtype_name(from_type) << " to " << dtype_name(to_type) << ", offset " << offset);
          TestTensor from(from_type, {7, 5, 11}, offset);
          TestTensor to(to_type, {7, 5, 11}, offset);
          TestTensor expected(to_type, {7, 5, 11}, offset);
          from.random(1);
          reference::copy({.from = from.view(), .to = expected.view()});
          cuda::copy({.from = from.view(), .to = to.view()}, nullptr);
          CHECK(to.bits() == expected.bits());

          TestTensor narrow(to_type, {7, 2, 8}, offset);
          TestTensor narrow_expected(to_type, {7, 2, 8}, offset);
          const TensorView part = from.view().slice(1, 3, 5).slice(2, 2, 10);
          reference::copy({.from = part, .to = narrow_expected.view()});
          cuda::copy({.from = part, .to = narrow.view()}, nullptr);
          CHECK(narrow.bits() == narrow_expected.bits());
          CHECK(narrow.error() < 2.0);  // nothing outside was written
        }
      }
    }
    for (const std::int64_t offset : {0, 1}) {
      TestTensor ids(DType::kInt32, {3, 2}, offset);
      TestTensor copied(DType::kInt32, {3, 2}, offset);
      ids.ints({3, -1, 1 << 30, 0, 7, 9});
      cuda::copy({.from = ids.view(), .to = copied.view()}, nullptr);
      CHECK(copied.bits() == ids.bits());
      TestTensor column(DType::kInt32, {3, 1}, offset);
      TestTensor expected(DType::kInt32, {3, 1}, offset);
      expected.ints({-1, 0, 9});
      cuda::copy({.from = ids.view().slice(1, 1, 2), .to = column.view()}, nullptr);
      CHECK(column.bits() == expected.bits());
    }
  });
}

TEST_CASE("random_normal draws the values of the project's counter generator", "[elementwise]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      TestTensor y(dtype, {5, 7});
      TestTensor expected(DType::kFloat32, {5, 7});
      const auto args = [](TensorView view) {
        return RandomNormalArgs{.y = view,
                                .row_begin = 3,
                                .col_begin = 2,
                                .global_cols = 20,
                                .standard_deviation = 0.02,
                                .seed = 0x123456789abcdefU,
                                .stream = stream_id("w")};
      };
      reference::random_normal<float>(args(expected.view()));
      cuda::random_normal(args(y.view()), nullptr);
      for (std::size_t i = 0; i < 35; ++i) {
        const auto value = static_cast<float>(expected.get(i));
        CHECK(y.get(i) == rounded(dtype, value));
      }
    }
  });
}

// Dropout against the reference: the same elements are dropped, bit for bit.
#include <catch2/catch.hpp>
#include <limits>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/dropout.h"

using namespace caravan;
using namespace caravan::test;

namespace {

const StepScalars kScalars{.dropout_key = 0x0123456789abcdefU};

/// Rows and places at the ends of their range too.
struct Tokens {
  TestTensor rows{DType::kInt32, {5}};
  TestTensor places{DType::kInt32, {5}};
  Tokens() {
    rows.ints({0, 1, 7, 0x7fffffff, 0});
    places.ints({0, 1, 0x7fffffff, 3, 2});
  }
};

void drop(std::int64_t width, std::int64_t offset, DType dtype, double rate, bool in_place) {
  INFO(width << " columns, offset " << offset << ", " << dtype_name(dtype) << ", rate " << rate
             << ", in place " << in_place);
  Tokens tokens;
  TestTensor x(dtype, {5, width}, offset);
  TestTensor y(dtype, {5, width}, offset);
  x.random(1, 0.5, 1.0);  // no zeros: those of the result are the dropped ones
  const auto args = [&](auto form) {
    return DropoutArgs{.x = form(x),
                       .y = in_place ? form(x) : form(y),
                       .rows = tokens.rows.view(),
                       .places = tokens.places.view(),
                       .site = 9,
                       .rate = rate,
                       .scalars = &kScalars};
  };
  reference::dropout<double>(args(reference_form));
  cuda::dropout(args(kernel_form), nullptr);
  TestTensor& result = in_place ? x : y;
  CHECK(result.error() <= tolerance(dtype));
  const auto* expected = result.reference().data<double>();
  for (std::size_t i = 0; i < static_cast<std::size_t>(5 * width); ++i) {
    CHECK((result.get(i) == 0.0) == (expected[i] == 0.0));
  }
}

}  // namespace

TEST_CASE("dropout drops what the reference drops, at any width, alignment and rate", "[dropout]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      for (const std::int64_t width : host_runner::kThreadSanitizer
                                          ? std::vector<std::int64_t>{24}
                                          : std::vector<std::int64_t>{1, 7, 24, 1032, 4104}) {
        drop(width, 0, dtype, 0.1, false);
        drop(width, 1, dtype, 0.5, true);
        drop(width, 0, dtype, 0.0, true);
        drop(width, 0, dtype, 0.999, false);
      }
    }
    drop(0, 0, DType::kFloat32, 0.5, false);
  });
}

TEST_CASE("a dropped element is 0 whatever it was, and a kept one stays what it is", "[dropout]") {
  for_each_schedule([] {
    Tokens tokens;
    TestTensor x(DType::kFloat32, {5, 16});
    const double inf = std::numeric_limits<double>::infinity();
    x.fill(std::vector<double>(80, inf));
    cuda::dropout({.x = x.view(),
                   .y = x.view(),
                   .rows = tokens.rows.view(),
                   .places = tokens.places.view(),
                   .rate = 0.5,
                   .scalars = &kScalars},
                  nullptr);
    int dropped = 0;
    for (const double value : x.values()) {
      CHECK((value == 0.0 || value == inf));
      dropped += value == 0.0 ? 1 : 0;
    }
    CHECK(dropped > 20);
    CHECK(dropped < 60);
  });
}

#include "caravan/train/matrix_parts.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "caravan/comm/self_communicator.h"

using namespace caravan;

namespace {

/// 4 × 3, element [r, c] = 10 r + c.
struct Whole {
  std::vector<double> values = {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32};
  TensorView view() { return {values.data(), DType::kFloat64, {4, 3}}; }
  double rms() { return root_mean_square(view()); }
};

}  // namespace

TEST_CASE("a part equal to the whole has no difference, wherever it lies", "[train][parts]") {
  Whole whole;
  std::vector<double> values = {21, 22, 0, 0, 1, 2};
  const MatrixPart part{.rows = {2, MatrixPart::kNoRow, 0},
                        .first_column = 1,
                        .values = TensorView(values.data(), DType::kFloat64, {3, 2})};
  const PartDifference result = compare_part(part, whole.view(), whole.rms());
  CHECK(result.compared == 4);  // not the row of no token
  CHECK(result.unequal == 0);
  CHECK(result.relative == 0.0);
}

TEST_CASE("a difference is counted, sized and placed", "[train][parts]") {
  Whole whole;
  std::vector<double> values = {10, 11, 15, 20, 20, 22};
  const MatrixPart part =
      part_of_tensor({{1, 3}, {0, 3}}, TensorView(values.data(), DType::kFloat64, {2, 3}));
  const PartDifference result = compare_part(part, whole.view(), whole.rms());
  CHECK(result.compared == 6);
  CHECK(result.unequal == 2);
  CHECK(result.sum_absolute == 4.0);
  CHECK(result.row == 1);
  CHECK(result.column == 2);
  CHECK(result.value == 15.0);
  CHECK(result.expected == 12.0);
  CHECK(result.relative == Approx(std::sqrt(10.0 / 6.0) / whole.rms()));
}

TEST_CASE("bits are compared, and what is no number differs from everything", "[train][parts]") {
  std::vector<float> whole = {0.0F, 1.0F};
  const TensorView view(whole.data(), DType::kFloat32, {2});
  std::vector<float> part = {-0.0F, 1.0F};
  const auto compare = [&] {
    return compare_part(part_of_tensor({{0, 2}}, TensorView(part.data(), DType::kFloat32, {2})), view,
                        root_mean_square(view));
  };
  CHECK(compare().unequal == 1);
  CHECK(compare().relative == 0.0);
  part = {0.0F, std::numeric_limits<float>::quiet_NaN()};
  CHECK(std::isnan(compare().relative));
}

TEST_CASE("one rank sees its own part", "[train][parts]") {
  SelfCommunicator self;
  std::vector<double> values = {1, 2};
  int visits = 0;
  visit_parts(self, 0, part_of_tensor({{0, 2}}, TensorView(values.data(), DType::kFloat64, {2})),
              [&](int rank, const MatrixPart& part) {
                CHECK(rank == 0);
                CHECK(part.values.dim(0) == 2);
                ++visits;
              });
  CHECK(visits == 1);
}

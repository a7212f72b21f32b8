// Transposes, bit for bit, and where their tiles lie in the banks of shared memory.
#include <catch2/catch.hpp>
#include <cstring>
#include <set>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/cuda/transpose.h"

using namespace caravan;
using namespace caravan::test;

namespace {

void transpose(std::int64_t rows, std::int64_t columns, std::int64_t offset, DType dtype) {
  INFO(rows << " × " << columns << ", offset " << offset << ", " << dtype_name(dtype));
  TestTensor from(dtype, {rows, columns}, offset);
  TestTensor to(dtype, {columns, rows}, offset);
  from.random(1);
  cuda::transpose({.from = from.view(), .to = to.view()}, nullptr);
  std::vector<double> expected(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      expected[static_cast<std::size_t>(j * rows + i)] = from.get(static_cast<std::size_t>(i * columns + j));
    }
  }
  CHECK(to.values() == expected);
  CHECK(to.error() < 2.0);  // nothing outside was written
}

/// Banks of the words that 32 lanes touch.
template <class SlotOf>
std::size_t banks(const SlotOf& slot_of) {
  std::set<int> all;
  for (int lane = 0; lane < 32; ++lane) {
    all.insert(slot_of(lane) % 32);
  }
  return all.size();
}

}  // namespace

TEST_CASE("transpose turns any matrix of elements of 2 or 4 bytes", "[transpose]") {
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes =
      host_runner::kThreadSanitizer
          ? std::vector<std::pair<std::int64_t, std::int64_t>>{{34, 66}, {33, 5}}
          : std::vector<std::pair<std::int64_t, std::int64_t>>{
                {1, 1}, {2, 2}, {1, 100}, {100, 1}, {32, 32}, {64, 64}, {66, 130}, {33, 65}, {40, 7}, {0, 5}};
  for_each_schedule([&] {
    for (const DType dtype : kStorageTypes) {
      for (const auto& [rows, columns] : shapes) {
        transpose(rows, columns, 0, dtype);
        transpose(rows, columns, 1, dtype);
      }
    }
  });
}

TEST_CASE("the lanes of a warp touch 32 banks when they write the tile and when they read it",
          "[transpose]") {
  using namespace caravan::cuda;
  for (int i = 0; i < kTransposeTile; ++i) {
    CHECK(banks([&](int lane) { return i * kTransposePitch + lane; }) == 32);
    CHECK(banks([&](int lane) { return lane * kTransposePitch + i; }) == 32);
    CHECK(banks([&](int lane) { return pair_row_slot(2 * lane) * kTransposePitch + i; }) == 32);
    CHECK(banks([&](int lane) { return pair_row_slot(2 * lane + 1) * kTransposePitch + i; }) == 32);
  }
  std::set<int> slots;
  for (int row = 0; row < 2 * kTransposeTile; ++row) {
    slots.insert(pair_row_slot(row));
  }
  CHECK(slots.size() == 64);
  CHECK(*slots.rbegin() == 63);
}

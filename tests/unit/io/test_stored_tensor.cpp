#include "caravan/io/stored_tensor.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// A file of float32 0, 1, 2, ... behind a head of 20 bytes.
StoredTensor numbers(const TemporaryFolder& folder, std::int64_t count, std::vector<std::int64_t> shape,
                     std::vector<std::int64_t> strides) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0.0F);
  std::string text(20, 'h');
  text.append(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  write_text(folder / "numbers", text);
  return {"w",
          DType::kFloat32,
          std::move(shape),
          std::move(strides),
          20,
          std::make_shared<InputFile>(folder / "numbers")};
}

template <class T>
std::vector<T> read(const StoredTensor& tensor, const Region& region) {
  std::vector<T> values(static_cast<std::size_t>(region_shape(region).numel()));
  read_region(tensor, region, TensorView(values.data(), DTypeOf<T>::kValue, region_shape(region)));
  return values;
}

/// The region by the definition of strides.
std::vector<double> expected(const StoredTensor& tensor, const Region& region) {
  std::vector<double> values;
  for (std::int64_t i = region[0].begin; i < region[0].end; ++i) {
    for (std::int64_t j = region[1].begin; j < region[1].end; ++j) {
      values.push_back(static_cast<double>(i * tensor.strides[0] + j * tensor.strides[1]));
    }
  }
  return values;
}

}  // namespace

TEST_CASE("every region of a tensor equals the same part of the whole, whatever the strides",
          "[io][stored_tensor]") {
  const TemporaryFolder folder;
  for (const auto& strides :
       std::vector<std::vector<std::int64_t>>{{4, 1}, {7, 1}, {1, 5}, {9, 2}, {0, 1}, {50, 11}}) {
    const StoredTensor tensor = numbers(folder, 300, {5, 4}, strides);
    for (std::int64_t top = 0; top <= 5; ++top) {
      for (std::int64_t bottom = top; bottom <= 5; ++bottom) {
        for (std::int64_t left = 0; left <= 4; ++left) {
          for (std::int64_t right = left; right <= 4; ++right) {
            const Region region = {{top, bottom}, {left, right}};
            REQUIRE(read<double>(tensor, region) == expected(tensor, region));
          }
        }
      }
    }
  }
}

TEST_CASE("tensors of rank 0, 1, 3 and 4 are read", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  CHECK(read<float>(numbers(folder, 1, {}, {}), {}) == std::vector<float>{0});
  CHECK(read<float>(numbers(folder, 9, {9}, {1}), {{3, 6}}) == std::vector<float>{3, 4, 5});
  CHECK(read<float>(numbers(folder, 24, {2, 3, 4}, {12, 4, 1}), {{1, 2}, {0, 3}, {1, 3}}) ==
        std::vector<float>{13, 14, 17, 18, 21, 22});
  CHECK(read<float>(numbers(folder, 16, {2, 2, 2, 2}, {1, 2, 4, 8}), {{0, 2}, {1, 2}, {0, 1}, {0, 2}}) ==
        std::vector<float>{2, 10, 3, 11});
}

TEST_CASE("a destination may be a column slice of a larger view", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  const StoredTensor tensor = numbers(folder, 12, {3, 4}, {4, 1});
  std::vector<float> whole(3 * 10, -1.0F);
  const TensorView view(whole.data(), DType::kFloat32, {3, 10});
  read_region(tensor, {{0, 3}, {1, 4}}, view.slice(1, 5, 8));
  for (std::int64_t row = 0; row < 3; ++row) {
    for (std::int64_t column = 0; column < 10; ++column) {
      const bool is_read = column >= 5 && column < 8;
      CHECK(whole[static_cast<std::size_t>(row * 10 + column)] ==
            (is_read ? static_cast<float>(row * 4 + column - 4) : -1.0F));
    }
  }
}

TEST_CASE("a destination may be a single column of a larger view", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  for (const auto& strides : std::vector<std::vector<std::int64_t>>{{4, 1}, {1, 3}}) {
    const StoredTensor tensor = numbers(folder, 12, {3, 4}, strides);
    std::vector<float> whole(3 * 5, -1.0F);
    read_region(tensor, {{0, 3}, {2, 3}}, TensorView(whole.data(), DType::kFloat32, {3, 5}).slice(1, 4, 5));
    for (std::int64_t row = 0; row < 3; ++row) {
      CHECK(whole[static_cast<std::size_t>(row * 5 + 3)] == -1.0F);
      CHECK(whole[static_cast<std::size_t>(row * 5 + 4)] ==
            static_cast<float>(row * strides[0] + 2 * strides[1]));
    }
  }
}

TEST_CASE("a tensor larger than the staging buffer is converted in pieces", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  const std::int64_t count = 3'000'000;
  const StoredTensor tensor = numbers(folder, count, {3000, 1000}, {1000, 1});
  const auto values = read<double>(tensor, {{0, 3000}, {0, 1000}});
  bool is_same = true;
  for (std::int64_t i = 0; i < count; ++i) {
    is_same = is_same && values[static_cast<std::size_t>(i)] == static_cast<double>(i);
  }
  CHECK(is_same);
}

TEST_CASE("wrong regions, destinations and types are refused", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  StoredTensor tensor = numbers(folder, 20, {5, 4}, {4, 1});
  std::vector<float> out(20);
  const TensorView view(out.data(), DType::kFloat32, {5, 4});
  CHECK_THROWS_AS(read_region(tensor, {{0, 6}, {0, 4}}, view), InternalError);
  CHECK_THROWS_AS(read_region(tensor, {{0, 4}, {0, 4}}, view), InternalError);
  CHECK_THROWS_AS(read_region(tensor, {{0, 20}}, view), InternalError);
  tensor.dtype = DType::kInt32;
  CHECK_THROWS_WITH(read_region(tensor, {{0, 5}, {0, 4}}, view),
                    Catch::Contains("int32 and cannot be read as"));
  tensor.shape = {1, 1, 1, 1, 1};
  CHECK_THROWS_WITH(tensor.checked_shape(), Catch::Contains("5 dims"));
}

TEST_CASE("a file that became shorter is an error, not garbage", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  const StoredTensor tensor = numbers(folder, 20, {5, 4}, {4, 1});
  std::filesystem::resize_file(folder / "numbers", 60);
  std::vector<float> out(20);
  CHECK_THROWS_WITH(read_region(tensor, {{0, 5}, {0, 4}}, TensorView(out.data(), DType::kFloat32, {5, 4})),
                    Catch::Contains("became shorter"));
}

TEST_CASE("rows that lie close together are read with one call and end where they belong",
          "[io][stored_tensor]") {
  const TemporaryFolder folder;
  // 6000 rows of 100 columns, 2.4 MB wanted of 7.2 MB: more than one block of staging memory.
  const StoredTensor tensor = numbers(folder, 1'800'000, {6000, 300}, {300, 1});
  std::vector<float> wide(static_cast<std::size_t>(6000 * 130), -1.0F);
  const TensorView view(wide.data(), DType::kFloat32, {6000, 130});
  read_region(tensor, {{0, 6000}, {100, 200}}, view.slice(1, 20, 120));
  bool is_same = true;
  for (std::int64_t i = 0; i < 6000 * 130; ++i) {
    const std::int64_t row = i / 130;
    const std::int64_t column = i % 130;
    const bool is_read = column >= 20 && column < 120;
    const float wanted = is_read ? static_cast<float>(row * 300 + column + 80) : -1.0F;
    is_same = is_same && wide[static_cast<std::size_t>(i)] == wanted;
  }
  CHECK(is_same);
}

TEST_CASE("any dims of a file go to any strides of memory", "[io][stored_tensor]") {
  const TemporaryFolder folder;
  const StoredTensor tensor = numbers(folder, 2 * 3 * 4 * 5, {2, 3, 4, 5}, {60, 20, 5, 1});
  const std::vector<std::vector<std::int64_t>> orders = {{60, 20, 5, 1}, {60, 5, 15, 1}, {5, 40, 10, 1}};
  for (const auto& strides : orders) {
    std::vector<double> out(200, -1.0);
    read_strided(tensor, {{0, 2}, {1, 3}, {0, 4}, {1, 4}},
                 {reinterpret_cast<std::byte*>(out.data()), DType::kFloat64, strides});
    for (std::int64_t i = 0; i < 2 * 2 * 4 * 3; ++i) {
      const std::int64_t at[] = {i / 24, i / 12 % 2, i / 3 % 4, i % 3};
      const std::int64_t place = at[0] * strides[0] + at[1] * strides[1] + at[2] * strides[2] + at[3];
      REQUIRE(out[static_cast<std::size_t>(place)] ==
              static_cast<double>(at[0] * 60 + (at[1] + 1) * 20 + at[2] * 5 + at[3] + 1));
    }
  }
}

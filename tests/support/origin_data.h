// Tensors whose elements say where they came from, for communication tests: a wrong element names its sender,
// row and column.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/core/tensor_view.h"

namespace caravan::test {

/// rank·100000 + row·10 + col: unique up to 10000 rows of 10 columns, exact in float32 for up to 100 ranks.
inline std::int64_t origin(std::int64_t rank, std::int64_t row, std::int64_t col) {
  return rank * 100000 + row * 10 + col;
}

/// A contiguous [rows, cols] tensor that owns its memory.
template <class T>
struct OwnedMatrix {
  OwnedMatrix(std::int64_t rows_wanted, std::int64_t cols_wanted, T value)
      : rows(rows_wanted), cols(cols_wanted), values(static_cast<std::size_t>(rows * cols), value) {}

  TensorView view() { return TensorView(values.data(), DTypeOf<T>::kValue, {rows, cols}); }
  T& at(std::int64_t row, std::int64_t col) { return values[static_cast<std::size_t>(row * cols + col)]; }

  std::int64_t rows;
  std::int64_t cols;
  std::vector<T> values;
};

/// Element (row, col) is origin(rank, row, col).
template <class T>
OwnedMatrix<T> origin_matrix(std::int64_t rank, std::int64_t rows, std::int64_t cols) {
  OwnedMatrix<T> result(rows, cols, T{});
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; ++col) {
      result.at(row, col) = static_cast<T>(origin(rank, row, col));
    }
  }
  return result;
}

}  // namespace caravan::test

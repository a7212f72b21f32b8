// Small matrix products for operands in cache: register tiles of rows × vectors.
#pragma once

#include "kernels/cpu/simd/vector.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {

/// Rows of the register tile. 6 × 4 accumulators, 4 vectors of b and one broadcast fit 32 registers, 6 × 2
/// fit 16.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = kRegisters == 32 ? 4 : 2;

/// Element (i, p) of the first operand is data[i · row_stride + p · col_stride].
template <class T>
struct Left {
  const T* data;
  std::int64_t row_stride;
  std::int64_t col_stride;
};
/// Row p is contiguous at data + p · stride.
template <class T>
struct Right {
  const T* data;
  std::int64_t stride;
};
template <class T>
struct Result {
  T* data;
  std::int64_t stride;
};
enum class Start : std::uint8_t { kZero, kAdd };

/// c[i, 0 .. vectors·lanes) (+)= Σ_p a(i, p) · b[p, ·] for inner > 0; with kPartial the only vector has
/// `last` elements.
template <class T, int kRows, int kVectors, bool kPartial>
inline void tile(const Left<T>& a, const Right<T>& b, const Result<T>& c, std::int64_t inner, Start start,
                 std::int64_t last) {
  constexpr std::int64_t kWidth = kLanes<T>;
  // Copies: a store of T might otherwise change what the references say, and each would be read again.
  T* const out = c.data;
  const std::int64_t out_stride = c.stride;
  const std::int64_t row_stride = a.row_stride;
  const std::int64_t col_stride = a.col_stride;
  const std::int64_t right_stride = b.stride;
  Vec<T> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      T* at = out + i * out_stride + v * kWidth;
      sum[i][v] = start == Start::kZero ? Vec<T>{} : (kPartial ? load_first(at, last) : load(at));
    }
  }
  const T* right = b.data;
  const T* left = a.data;
  std::int64_t p = 0;
  do {  // not a loop that may end at once: the sums would be copied where its two ways out meet
    Vec<T> row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      row[v] = kPartial ? load_first(right, last) : load(right + v * kWidth);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const T factor = left[i * row_stride];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] += factor * row[v];
      }
    }
    right += right_stride;
    left += col_stride;
  } while (++p < inner);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      T* at = out + i * out_stride + v * kWidth;
      if constexpr (kPartial) {
        store_first(at, sum[i][v], last);
      } else {
        store(at, sum[i][v]);
      }
    }
  }
}

/// All columns of kRows rows: widest tiles first, a partial vector at the end.
template <class T, int kRows>
inline void tile_row(const Left<T>& a, const Right<T>& b, const Result<T>& c, std::int64_t cols,
                     std::int64_t inner, Start start) {
  constexpr std::int64_t kWidth = kLanes<T>;
  std::int64_t j = 0;
  const auto right = [&] { return Right<T>{b.data + j, b.stride}; };
  const auto result = [&] { return Result<T>{c.data + j, c.stride}; };
  for (; j + kTileVectors * kWidth <= cols; j += kTileVectors * kWidth) {
    tile<T, kRows, kTileVectors, false>(a, right(), result(), inner, start, 0);
  }
  if constexpr (kTileVectors == 4) {  // causal blocks are one, two or three vectors wide
    if (j + 2 * kWidth <= cols) {
      tile<T, kRows, 2, false>(a, right(), result(), inner, start, 0);
      j += 2 * kWidth;
    }
  }
  for (; j + kWidth <= cols; j += kWidth) {
    tile<T, kRows, 1, false>(a, right(), result(), inner, start, 0);
  }
  if (j < cols) {
    tile<T, kRows, 1, true>(a, right(), result(), inner, start, cols - j);
  }
}

/// c [rows, cols] (+)= a [rows, inner] · b [inner, cols]
template <class T>
inline void product(Left<T> a, const Right<T>& b, Result<T> c, std::int64_t rows, std::int64_t cols,
                    std::int64_t inner, Start start) {
  if (inner <= 0) {
    for (std::int64_t row = 0; start == Start::kZero && row < rows; ++row) {
      __builtin_memset(c.data + row * c.stride, 0, static_cast<std::size_t>(cols) * sizeof(T));
    }
    return;
  }
  std::int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    tile_row<T, kTileRows>(a, b, c, cols, inner, start);
    a.data += kTileRows * a.row_stride;
    c.data += kTileRows * c.stride;
  }
  switch (rows - i) {
    case 5:
      return tile_row<T, 5>(a, b, c, cols, inner, start);
    case 4:
      return tile_row<T, 4>(a, b, c, cols, inner, start);
    case 3:
      return tile_row<T, 3>(a, b, c, cols, inner, start);
    case 2:
      return tile_row<T, 2>(a, b, c, cols, inner, start);
    case 1:
      return tile_row<T, 1>(a, b, c, cols, inner, start);
    default:
      return;
  }
}

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

// What the forward and backward attention kernels share: visible ranges and score panels. Blocking and
// mathematics are explained in docs/derivations/attention.md.
#pragma once

#include "kernels/cpu/simd/product.h"
#include "kernels/cpu/simd_table.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {

static_assert(kQueryBlock % kTileRows == 0);

inline std::int64_t smaller_of(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}
inline std::int64_t larger_of(std::int64_t a, std::int64_t b) {
  return a > b ? a : b;
}

/// Half-open range; empty when end ≤ begin.
struct Span {
  std::int64_t begin;
  std::int64_t end;
  bool is_empty() const { return end <= begin; }
};

/// The part of block [base, base + kKeyBlock) query i sees, in columns of the block.
inline Span visible_columns(const std::int32_t* first, const std::int32_t* last, std::int64_t i,
                            std::int64_t base) {
  return {larger_of(first[i] - base, 0), smaller_of(last[i] - base, kKeyBlock)};
}

/// Union of the queries' visible ranges in a block (or over everything with base 0 and no limit).
inline Span visible_to_any(const std::int32_t* first, const std::int32_t* last, std::int64_t count,
                           std::int64_t base) {
  Span all = {kKeyBlock, 0};
  for (std::int64_t i = 0; i < count; ++i) {
    const Span columns = visible_columns(first, last, i, base);
    if (!columns.is_empty()) {
      all = {smaller_of(all.begin, columns.begin), larger_of(all.end, columns.end)};
    }
  }
  return all;
}

/// The range of keys any of the queries sees.
inline Span visible_keys(const std::int32_t* first, const std::int32_t* last, std::int64_t count) {
  Span all = {INT32_MAX, 0};
  for (std::int64_t i = 0; i < count; ++i) {
    if (first[i] < last[i]) {
      all = {smaller_of(all.begin, first[i]), larger_of(all.end, last[i])};
    }
  }
  return all;
}

/// Columns widened to whole vectors; blocks are a multiple of every vector.
template <class T>
inline Span whole_vectors(const Span& columns) {
  constexpr std::int64_t kWidth = kLanes<T>;
  return {columns.begin / kWidth * kWidth, (columns.end + kWidth - 1) / kWidth * kWidth};
}

/// All lanes of the vector at column `at` that lie in `columns`.
template <class T>
inline IntVec<T> lanes_in(const Span& columns, std::int64_t at) {
  using Integer = typename VectorOf<T>::Integer;
  const IntVec<T> lane = lane_numbers<T>(at);
  return (lane >= static_cast<Integer>(columns.begin)) & (lane < static_cast<Integer>(columns.end));
}

template <class T>
inline void fill_zero(T* data, std::int64_t count) {
  __builtin_memset(data, 0, static_cast<std::size_t>(count) * sizeof(T));
}

/// out[i, ·] = factor · rows[i, ·], contiguous.
template <class T>
inline void gather_scaled(const HeadRows<const T>& rows, std::int64_t count, std::int64_t head_dim, T factor,
                          T* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const T* from = rows.data + i * rows.stride;
    T* to = out + i * head_dim;
#pragma omp simd
    for (std::int64_t e = 0; e < head_dim; ++e) {
      to[e] = factor * from[e];
    }
  }
}

template <class T>
inline T dot(const T* a, const T* b, std::int64_t count) {
  Vec<T> sum{};
  std::int64_t e = 0;
  for (; e + kLanes<T> <= count; e += kLanes<T>) {
    sum += load(a + e) * load(b + e);
  }
  if (e < count) {
    sum += load_first(a + e, count - e) * load_first(b + e, count - e);
  }
  return sum_of<T>(sum);
}

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

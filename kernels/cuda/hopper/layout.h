// Address arithmetic of the Hopper kernels: tiles in shared memory under the 128-byte swizzle, matrix
// descriptors of wgmma, places in a ring of stages, fragments. Pure functions, so that kernels, the host
// runner and unit tests share one text (PTX ISA 8.x, "Asynchronous warpgroup level matrix instructions").
//
// A tile [rows, columns] of bfloat16 lies in panels of 64 columns, each rows × 128 bytes, one behind the
// other; rows is a multiple of 8 and the tile begins at a multiple of 1024 bytes. Within a panel the 16-byte
// chunk c of row r stands at chunk c xor (r mod 8): this is how bulk tensor copies write it and wgmma reads
// it, without bank conflicts.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define CARAVAN_HOST_DEVICE __host__ __device__
#else
#define CARAVAN_HOST_DEVICE
#endif

namespace caravan::cuda::hopper {

inline constexpr int kPanelColumns = 64;
inline constexpr int kPanelRowBytes = 128;
inline constexpr int kTileAlignment = 1024;  // bytes: eight rows, after which the swizzle repeats
inline constexpr int kElementBytes = 2;
inline constexpr int kContraction = 16;  // of one wgmma

/// Bits 4 to 6 of a byte offset are exchanged by bits 7 to 9.
CARAVAN_HOST_DEVICE constexpr unsigned swizzled(unsigned offset) {
  return offset ^ ((offset >> 3U) & 0x70U);
}

CARAVAN_HOST_DEVICE constexpr int panel_bytes(int rows) {
  return rows * kPanelRowBytes;
}
CARAVAN_HOST_DEVICE constexpr int tile_bytes(int rows, int columns) {
  return rows * columns * kElementBytes;
}

/// Byte offset of element (row, column) in a tile of `rows` rows.
CARAVAN_HOST_DEVICE constexpr unsigned element_offset(int rows, int row, int column) {
  const int plain = column / kPanelColumns * panel_bytes(rows) + row * kPanelRowBytes +
                    column % kPanelColumns * kElementBytes;
  return swizzled(static_cast<unsigned>(plain));
}

// ---- matrix descriptors. Fields: [0, 14) address / 16, [16, 30) leading offset / 16, [32, 46) stride
// offset / 16, [62, 64) swizzle, where 1 is 128 bytes. Adding bytes / 16 to a descriptor moves its address.

CARAVAN_HOST_DEVICE constexpr std::uint64_t descriptor(unsigned address, unsigned leading_bytes,
                                                       unsigned stride_bytes) {
  constexpr std::uint64_t kField = 0x3fff;
  constexpr std::uint64_t kSwizzle128 = 1;
  return ((address >> 4U) & kField) | (((leading_bytes >> 4U) & kField) << 16U) |
         (((stride_bytes >> 4U) & kField) << 32U) | (kSwizzle128 << 62U);
}

/// An operand whose contraction runs along the columns of its tile ("K-major"): rows are those of the
/// product. The leading offset is not used.
CARAVAN_HOST_DEVICE constexpr std::uint64_t along_columns(unsigned address) {
  return descriptor(address, 16, kTileAlignment);
}
/// From contraction step to step; `rows` of the whole tile.
CARAVAN_HOST_DEVICE constexpr std::uint64_t columns_step(int step, int rows) {
  const int column = step * kContraction;
  return static_cast<std::uint64_t>(column / kPanelColumns * panel_bytes(rows) +
                                    column % kPanelColumns * kElementBytes) >>
         4U;
}

/// An operand whose contraction runs along the rows of its tile ("MN-major"): the product has the tile's
/// columns. Panels are the leading offset, eight rows the stride.
CARAVAN_HOST_DEVICE constexpr std::uint64_t along_rows(unsigned address, int rows) {
  return descriptor(address, static_cast<unsigned>(panel_bytes(rows)), kTileAlignment);
}
CARAVAN_HOST_DEVICE constexpr std::uint64_t rows_step(int step) {
  return static_cast<std::uint64_t>(step * kContraction * kPanelRowBytes) >> 4U;
}

// ---- fragments. d[i][j] of a thread of a warpgroup's product [64, N]: row and column.

CARAVAN_HOST_DEVICE constexpr int accumulator_row(int thread, int j) {
  return thread / 32 % 4 * 16 + thread % 32 / 4 + j / 2 * 8;
}
CARAVAN_HOST_DEVICE constexpr int accumulator_column(int thread, int i, int j) {
  return 8 * i + 2 * (thread % 4) + j % 2;
}

// ---- rings

/// Where a ring of kStages buffers is used next, and in which of its rounds (by parity). The consumer waits
/// for `phase` of "full"; the producer for the opposite of "empty", so that its first round passes.
template <int kStages>
struct RingPlace {
  int stage = 0;
  std::uint32_t phase = 0;
  CARAVAN_HOST_DEVICE constexpr void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1U;
    }
  }
};

// ---- which tiles of keys a tile of queries meets, and in which order

/// Tiles [begin, end) hold a key that some query may see; of these, every query sees every key of
/// [full_begin, full_end). Masked steps come first, from the last tile backwards, then the full ones: two
/// loops, of which the second compares nothing.
struct KeySteps {
  int begin;
  int end;
  int full_begin;
  int full_end;

  CARAVAN_HOST_DEVICE constexpr int masked() const { return end - full_end + (full_begin - begin); }
  CARAVAN_HOST_DEVICE constexpr int count() const { return end - begin; }
  CARAVAN_HOST_DEVICE constexpr int tile(int step) const {
    const int right = end - full_end;
    if (step < right) {
      return end - 1 - step;
    }
    const int left = full_begin - begin;
    return step < right + left ? full_begin - 1 - (step - right) : full_end - 1 - (step - right - left);
  }
};

/// From the tiles that are seen and those that are seen whole, which may be given as an empty range or one
/// that reaches beyond (attention_mask.h counts them).
CARAVAN_HOST_DEVICE constexpr KeySteps key_steps(int seen_begin, int seen_end, int whole_begin,
                                                 int whole_end) {
  const int end = seen_end > seen_begin ? seen_end : seen_begin;
  const int low = whole_begin > seen_begin ? whole_begin : seen_begin;
  const int high = whole_end < end ? whole_end : end;
  return low < high ? KeySteps{seen_begin, end, low, high}
                    : KeySteps{seen_begin, end, seen_begin, seen_begin};
}

}  // namespace caravan::cuda::hopper

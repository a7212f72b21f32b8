// Tiles of attention on tensor cores: how rows of a head come into shared memory, how a warp multiplies them,
// and how its results go back. Fragment layouts are those of tile_ops.h; docs/notes/cuda-attention.md
// explains the whole.
//
// Kernels take a class C of constants: kHeadDim, kThreads, kSlots and the rules of TileRules, which the tests
// replace one at a time to see that each is needed.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/tile_ops.h"

namespace caravan::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;

struct TileRules {
  template <int kGroups>
  static __device__ void wait() {
    cp_async_wait<kGroups>();
  }
  static __device__ void barrier() { __syncthreads(); }
  /// Where a row keeps its 16-byte chunk. Eight rows' chunks of one number, which ldmatrix reads at once,
  /// begin a multiple of 128 bytes apart in the same 4 of the 32 banks; turned by the row they take all 32.
  static __device__ int place(int row, int chunk) { return chunk ^ (row % 8); }
};

/// Rows of kHeadDim bfloat16 in shared memory, at a multiple of a row's bytes.
template <class C>
struct Tile {
  static constexpr int kChunks = C::kHeadDim / 8;
  BFloat16* data;

  __device__ BFloat16* at(int row, int chunk) const {
    return data + row * C::kHeadDim + C::place(row, chunk) * 8;
  }
};

/// Where a lane reads blocks of 16 rows and 16 columns of a tile: one register for them all, since turning a
/// chunk by its row and stepping over chunks are both an exclusive or.
template <class C>
struct LaneOffset {
  int elements;
  /// The lane's row (of 16) and chunk (of 2) in a block.
  __device__ LaneOffset(int row, int chunk) : elements(row * C::kHeadDim + C::place(row, chunk) * 8) {}
  __device__ const BFloat16* in(Tile<C> tile, int row_block, int step) const {
    return tile.data + row_block * 16 * C::kHeadDim + (elements ^ (step * 16));
  }
  /// As the left operand, or transposed as the right one: rows of the first chunk, then of the second.
  static __device__ LaneOffset by_columns() {
    const int lane = thread_index_again() % kWarpSize;
    return {lane % 16, lane / 16};
  }
  /// As the right operand of a product with a transpose: both chunks of rows 0 to 7, then of 8 to 15.
  static __device__ LaneOffset by_rows() {
    const int lane = thread_index_again() % kWarpSize;
    return {lane / 16 * 8 + lane % 8, lane / 8 % 2};
  }
};

/// Where a lane's elements of an accumulator [16, 8] are: rows group and group + 8, columns 2·member, +1.
struct LaneOf {
  int group;
  int member;
  __device__ LaneOf() {
    const int lane = thread_index_again() % kWarpSize;
    group = lane / 4;
    member = lane % 4;
  }
};

/// Rows of one head of a [tokens, heads · E] tensor.
template <class T>
struct HeadRows {
  T* data;    // of row 0
  int pitch;  // chunks of 8 elements from row to row: an int reaches 32 GiB
  int count;  // rows
};

/// Starts copying kRows rows from `begin` on into a tile, by all threads of the block; zeros beyond the last.
template <class C, int kRows>
__device__ void start_rows(Tile<C> tile, const HeadRows<const BFloat16>& from, int begin) {
  constexpr int kChunks = Tile<C>::kChunks;
  constexpr int kRowStep = C::kThreads / kChunks;
  static_assert(kRowStep % 8 == 0 && kRows % kRowStep == 0);  // a thread's chunks all have the same place
  const int thread = thread_index_again();
  const int row = thread / kChunks;
  const int chunk = thread % kChunks;
  BFloat16* to = tile.at(row, chunk);
  int source = (begin + row) * from.pitch + chunk;
#pragma unroll
  for (int i = 0; i < kRows / kRowStep; ++i) {
    const bool is_there = begin + row + i * kRowStep < from.count;
    cp_async_16(to + i * kRowStep * C::kHeadDim, from.data + (is_there ? source : 0) * std::int64_t{8},
                is_there);
    source += kRowStep * from.pitch;
  }
}

/// Items that stream through kSlots buffers of shared memory, each filled while those before it are used.
/// `start(slot, item)` begins the copies of the item that comes `item` after the next one, or none at the
/// end.
template <class C, int kSlotElements>
class TileRing {
 public:
  static constexpr int kElements = C::kSlots * kSlotElements;

  __device__ explicit TileRing(BFloat16* memory) : memory_(memory) {}

  /// The first kSlots − 1 items. What was begun before belongs to the first.
  template <class Start>
  __device__ void begin(const Start& start) {
#pragma unroll
    for (int slot = 0; slot < C::kSlots - 1; ++slot) {
      start(memory_ + slot * kSlotElements, slot);
      cp_async_commit();
    }
  }
  /// The next item, which is whole until the call after this one. All threads call it.
  template <class Start>
  __device__ BFloat16* next(const Start& start) {
    C::template wait<C::kSlots - 2>();  // this thread's copies of the item have arrived
    C::barrier();                       // everybody's have, and everybody has done with the item before,
    const int free = slot_ == 0 ? C::kSlots - 1 : slot_ - 1;  // whose slot may be filled
    start(memory_ + free * kSlotElements, C::kSlots - 1);
    cp_async_commit();  // also of nothing: groups are counted
    BFloat16* item = memory_ + slot_ * kSlotElements;
    slot_ = slot_ == C::kSlots - 1 ? 0 : slot_ + 1;
    return item;
  }

 private:
  BFloat16* memory_;
  int slot_ = 0;  // of the next item
};

/// += a · bᵀ of rows [a_row, a_row + 16 · kRowBlocks) of tile a and the first 8 · kColumnBlocks rows of b.
template <class C, int kRowBlocks, int kColumnBlocks>
__device__ void add_row_products(float (&sums)[kRowBlocks][kColumnBlocks][4], Tile<C> a, int a_row,
                                 Tile<C> b) {
  const auto left_at = LaneOffset<C>::by_columns();
  const auto right_at = LaneOffset<C>::by_rows();
  const Tile<C> own{a.data + a_row * C::kHeadDim};
#pragma unroll 2  // more would keep more addresses in registers than there are
  for (int step = 0; step < C::kHeadDim / 16; ++step) {
    std::uint32_t left[kRowBlocks][4];
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
      ldmatrix_x4(left[r], left_at.in(own, r, step));
    }
#pragma unroll
    for (int c = 0; c < kColumnBlocks; c += 2) {
      std::uint32_t right[4];
      ldmatrix_x4(right, right_at.in(b, c / 2, step));
      const std::uint32_t first[2] = {right[0], right[1]};
      const std::uint32_t second[2] = {right[2], right[3]};
#pragma unroll
      for (int r = 0; r < kRowBlocks; ++r) {
        mma_m16n8k16(sums[r][c], left[r], first);
        mma_m16n8k16(sums[r][c + 1], left[r], second);
      }
    }
  }
}

/// Weights [16 · kRowBlocks, 8 · kInner] as the left operand of a product. The lanes of an accumulator hold
/// just the elements they have to give, so these are only rounded to bfloat16 and never leave their lane.
template <int kRowBlocks, int kInner>
struct LeftOperand {
  std::uint32_t blocks[kRowBlocks][kInner / 2][4];

  __device__ explicit LeftOperand(const float (&weights)[kRowBlocks][kInner][4]) {
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
      for (int c = 0; c < kInner; ++c) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          blocks[r][c / 2][c % 2 * 2 + half] =
              pack_bf16(weights[r][c][2 * half], weights[r][c][2 * half + 1]);
        }
      }
    }
  }
};

/// += weights · b, the first 8 · kInner rows of a tile.
template <class C, int kRowBlocks, int kInner>
__device__ void add_weighted_rows(float (&sums)[kRowBlocks][C::kHeadDim / 8][4],
                                  const LeftOperand<kRowBlocks, kInner>& weights, Tile<C> b) {
  const auto right_at = LaneOffset<C>::by_columns();
#pragma unroll
  for (int k = 0; k < kInner / 2; ++k) {
#pragma unroll
    for (int step = 0; step < C::kHeadDim / 16; ++step) {
      std::uint32_t right[4];
      ldmatrix_x4_trans(right, right_at.in(b, k, step));
      const std::uint32_t first[2] = {right[0], right[1]};
      const std::uint32_t second[2] = {right[2], right[3]};
#pragma unroll
      for (int r = 0; r < kRowBlocks; ++r) {
        mma_m16n8k16(sums[r][2 * step], weights.blocks[r][k], first);
        mma_m16n8k16(sums[r][2 * step + 1], weights.blocks[r][k], second);
      }
    }
  }
}

/// A warp's accumulator, times a factor for each of the lane's rows, to rows begin + tile_row, ... of a head,
/// in accesses of 16 bytes. It goes through rows [tile_row, tile_row + 16 · kRowBlocks) of a tile that no
/// other warp uses any more.
template <class C, int kRowBlocks>
__device__ void store_rows(const float (&sums)[kRowBlocks][C::kHeadDim / 8][4],
                           const float (&factors)[kRowBlocks][2], Tile<C> tile, int tile_row,
                           const HeadRows<BFloat16>& to, int begin) {
  constexpr int kChunks = Tile<C>::kChunks;
  const LaneOf lane;
  __syncwarp();  // the lanes have read what these rows held
#pragma unroll
  for (int r = 0; r < kRowBlocks; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const float factor = factors[r][half];
        store_pack<2>(tile.at(tile_row + 16 * r + 8 * half + lane.group, c) + 2 * lane.member,
                      Pack<BFloat16, 2>{{store_float<BFloat16>(sums[r][c][2 * half] * factor),
                                         store_float<BFloat16>(sums[r][c][2 * half + 1] * factor)}});
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kRowBlocks * 16 * kChunks / kWarpSize; ++i) {
    const int at = i * kWarpSize + static_cast<int>(threadIdx.x) % kWarpSize;
    const int row = tile_row + at / kChunks;
    if (begin + row < to.count) {
      store_pack<8>(to.data + ((begin + row) * to.pitch + at % kChunks) * std::int64_t{8},
                    load_pack<8>(tile.at(row, at % kChunks)));
    }
  }
}

}  // namespace caravan::cuda

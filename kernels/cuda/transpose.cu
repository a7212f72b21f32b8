// Transposes through a tile in shared memory: both sides are read and written in rows of 128 bytes, and no
// two lanes meet in a bank (kernels/cuda/transpose.h).
#include "kernels/cuda/transpose.h"

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launchers.h"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

struct Matrix {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t tiles_across;

  /// First row (column) of the block's tile of `edge` elements each way.
  __device__ std::int64_t row_of(std::int64_t tile, int edge) const { return tile / tiles_across * edge; }
  __device__ std::int64_t column_of(std::int64_t tile, int edge) const { return tile % tiles_across * edge; }
};

/// Elements one by one: any size and alignment. A lane is a column when reading, a row when writing.
template <class Word>
__global__ void __launch_bounds__(kThreads) transpose_kernel(const Word* from, Word* to, Matrix m) {
  SharedMemory smem;
  auto* tile = smem.take<Word>(kTransposeTile * kTransposePitch);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t row = m.row_of(blockIdx.x, kTransposeTile);
  const std::int64_t column = m.column_of(blockIdx.x, kTransposeTile);
  for (int i = warp; i < kTransposeTile; i += kWarps) {
    if (row + i < m.rows && column + lane < m.columns) {
      tile[i * kTransposePitch + lane] = from[(row + i) * m.columns + column + lane];
    }
  }
  __syncthreads();
  for (int i = warp; i < kTransposeTile; i += kWarps) {
    if (column + i < m.columns && row + lane < m.rows) {
      to[(column + i) * m.rows + row + lane] = tile[lane * kTransposePitch + i];
    }
  }
}

/// 16-bit elements in pairs, of a matrix of even sides: a tile is 64 × 64.
__global__ void __launch_bounds__(kThreads)
    transpose_pairs_kernel(const std::uint16_t* from, std::uint16_t* to, Matrix m) {
  constexpr int kEdge = 2 * kTransposeTile;
  SharedMemory smem;
  auto* tile = smem.take<std::uint32_t>(kEdge * kTransposePitch);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t row = m.row_of(blockIdx.x, kEdge);
  const std::int64_t column = m.column_of(blockIdx.x, kEdge);
  for (int i = warp; i < kEdge; i += kWarps) {
    const std::int64_t at = column + 2 * static_cast<std::int64_t>(lane);
    if (row + i < m.rows && at < m.columns) {
      const Pack<std::uint16_t, 2> pair = load_pack<2>(from + (row + i) * m.columns + at);
      tile[pair_row_slot(i) * kTransposePitch + lane] =
          static_cast<std::uint32_t>(pair[0]) | (static_cast<std::uint32_t>(pair[1]) << 16U);
    }
  }
  __syncthreads();
  // A warp writes two columns: their elements of rows 2·lane and 2·lane + 1 are four halves of two words.
  for (int i = warp; i < kTransposeTile; i += kWarps) {
    const std::int64_t at = row + 2 * static_cast<std::int64_t>(lane);
    if (column + 2 * i < m.columns && at < m.rows) {
      const std::uint32_t even = tile[pair_row_slot(2 * lane) * kTransposePitch + i];
      const std::uint32_t odd = tile[pair_row_slot(2 * lane + 1) * kTransposePitch + i];
      const Pack<std::uint16_t, 2> first{{static_cast<std::uint16_t>(even), static_cast<std::uint16_t>(odd)}};
      const Pack<std::uint16_t, 2> second{
          {static_cast<std::uint16_t>(even >> 16U), static_cast<std::uint16_t>(odd >> 16U)}};
      store_pack<2>(to + (column + 2 * i) * m.rows + at, first);
      store_pack<2>(to + (column + 2 * i + 1) * m.rows + at, second);
    }
  }
}

/// For tiles of `edge` elements each way.
template <class Kernel, class Word>
void launch_tiles(Kernel* kernel, const Word* from, Word* to, std::int64_t rows, std::int64_t columns,
                  int edge, std::size_t shared_bytes, StreamHandle stream) {
  const Matrix m{.rows = rows, .columns = columns, .tiles_across = (columns + edge - 1) / edge};
  const std::int64_t tiles = (rows + edge - 1) / edge * m.tiles_across;
  launch("transpose", kernel,
         {.grid = static_cast<unsigned>(tiles),
          .block = kThreads,
          .shared_bytes = shared_bytes,
          .stream = stream},
         from, to, m);
}

/// The bits of elements of sizeof(Word) bytes.
template <class Word>
void transpose_words(const TransposeArgs& args, StreamHandle stream) {
  const auto* from = static_cast<const Word*>(args.from.raw());
  auto* to = static_cast<Word*>(args.to.raw());
  const std::int64_t rows = args.from.dim(0);
  const std::int64_t columns = args.from.dim(1);
  if constexpr (sizeof(Word) == 2) {
    const bool in_pairs = rows % 2 == 0 && columns % 2 == 0 &&
                          reinterpret_cast<std::uintptr_t>(from) % 4 == 0 &&
                          reinterpret_cast<std::uintptr_t>(to) % 4 == 0;
    if (in_pairs) {
      launch_tiles(transpose_pairs_kernel, from, to, rows, columns, 2 * kTransposeTile,
                   2 * kTransposeTile * kTransposePitch * sizeof(std::uint32_t), stream);
      return;
    }
  }
  launch_tiles(transpose_kernel<Word>, from, to, rows, columns, kTransposeTile,
               kTransposeTile * kTransposePitch * sizeof(Word), stream);
}

}  // namespace

void transpose(const TransposeArgs& args, StreamHandle stream) {
  if (args.from.numel() == 0) {
    return;
  }
  if (dtype_bytes(args.from.dtype()) == 2) {
    transpose_words<std::uint16_t>(args, stream);
  } else {
    check_word(args.from);
    transpose_words<std::uint32_t>(args, stream);
  }
}

}  // namespace caravan::cuda

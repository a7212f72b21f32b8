// Where the tile of a transposing kernel lies in shared memory.
#pragma once

#include "kernels/cuda/device.h"

namespace caravan::cuda {

inline constexpr int kTransposeTile = 32;                   // words of 4 bytes, each way
inline constexpr int kTransposePitch = kTransposeTile + 1;  // so that a column lies in 32 banks too

/// 16-bit elements in pairs: the slot of row `row` of 64 in the tile. A lane reads rows 2j and 2j + 1 of one
/// column; with even and odd rows in halves of the tile, the 32 lanes' rows are neighbouring slots and lie in
/// 32 banks.
__host__ __device__ constexpr int pair_row_slot(int row) {
  return row % 2 * kTransposeTile + row / 2;
}

}  // namespace caravan::cuda

// Dropout: masks from Philox4x32-10 (core/counter_rng.h has it in one line per step), many blocks at a time.
#include "kernels/cpu/simd/ops.h"
#include "kernels/cpu/simd/vector.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kWords = 4;    // of a block
constexpr std::int64_t kBlocks = 16;  // at a time
constexpr std::int64_t kChunk = kWords * kBlocks;

/// The counters of the blocks, and after ten rounds their words.
using Blocks = std::uint32_t[kWords][kBlocks];

inline void philox_round(Blocks& b, std::uint32_t key0, std::uint32_t key1) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53U;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57U;
#pragma omp simd
  for (std::int64_t i = 0; i < kBlocks; ++i) {
    const std::uint64_t product0 = kMultiplier0 * b[0][i];
    const std::uint64_t product1 = kMultiplier1 * b[2][i];
    b[0][i] = static_cast<std::uint32_t>(product1 >> 32U) ^ b[1][i] ^ key0;
    b[1][i] = static_cast<std::uint32_t>(product1);
    b[2][i] = static_cast<std::uint32_t>(product0 >> 32U) ^ b[3][i] ^ key1;
    b[3][i] = static_cast<std::uint32_t>(product0);
  }
}

/// The words of kChunk features from `first` on, in the order of the features.
inline void draw(std::uint32_t first_block, std::uint32_t place, std::uint32_t row, std::uint32_t site,
                 const std::uint32_t* key, std::uint32_t* words) {
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;
  constexpr std::uint32_t kRounds = 10;
  Blocks blocks;
  for (std::uint32_t i = 0; i < kBlocks; ++i) {
    blocks[0][i] = first_block + i;
    blocks[1][i] = place;
    blocks[2][i] = row;
    blocks[3][i] = site;
  }
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    philox_round(blocks, key[0] + round * kWeyl0, key[1] + round * kWeyl1);
  }
  for (std::int64_t i = 0; i < kBlocks; ++i) {
    for (std::int64_t w = 0; w < kWords; ++w) {
      words[kWords * i + w] = blocks[w][i];
    }
  }
}

}  // namespace

template <class T>
void dropout(const DropoutRows<T>& args) {
  const T factor = args.factor;
  const std::uint32_t threshold = args.threshold;
  std::uint32_t words[kChunk];
  for (std::int64_t row = 0; row < args.rows; ++row) {
    for (std::int64_t begin = 0; begin < args.width; begin += kChunk) {
      draw(static_cast<std::uint32_t>(begin / kWords), static_cast<std::uint32_t>(args.places[row]),
           static_cast<std::uint32_t>(args.row_numbers[row]), args.site, args.key, words);
      const std::int64_t count = args.width - begin < kChunk ? args.width - begin : kChunk;
      const T* x = args.x + row * args.width + begin;
      T* y = args.y + row * args.width + begin;
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) {
        y[i] = words[i] < threshold ? T{} : x[i] * factor;
      }
    }
  }
}

template void dropout(const DropoutRows<float>&);
template void dropout(const DropoutRows<double>&);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

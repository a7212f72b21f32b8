// The host runner on kernels that keep the rules: indices, barriers, warp operations, shared memory, atomics,
// copies.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "host_runner/schedules.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/tile_ops.h"

using namespace caravan;
using namespace caravan::cuda;
using caravan::test::for_each_schedule;

namespace {

int thread_index() {
  return static_cast<int>(threadIdx.x);
}

/// One element per thread of a three-dimensional launch.
void number_threads_kernel(int* order) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned per_block = blockDim.x * blockDim.y * blockDim.z;
  order[block * per_block + thread] += static_cast<int>(block * per_block + thread);
}

/// Every block reverses its part through shared memory, and adds up neighbours after a second barrier.
void reverse_kernel(const float* x, float* y) {
  SharedMemory smem;
  const int threads = static_cast<int>(blockDim.x);
  auto* tile = smem.take<float>(threads);
  auto* reversed = smem.take<float>(threads);
  const int at = static_cast<int>(blockIdx.x) * threads;
  tile[thread_index()] = x[at + thread_index()];
  __syncthreads();
  reversed[thread_index()] = tile[threads - 1 - thread_index()];
  __syncthreads();
  y[at + thread_index()] = reversed[thread_index()] + reversed[(thread_index() + 1) % threads];
}

void warp_kernel(int* results) {
  const int lane = thread_index() % kWarpSize;
  int* mine = results + thread_index() * 6;
  mine[0] = __shfl_sync(kAllLanes, thread_index(), 5);
  mine[1] = __shfl_xor_sync(kAllLanes, thread_index(), 3);
  mine[2] = __shfl_up_sync(kAllLanes, thread_index(), 2);
  mine[3] = __shfl_down_sync(kAllLanes, thread_index(), 4);
  mine[4] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0));
  // Two halves of a warp in two branches, each with its own mask.
  if (lane < 16) {
    mine[5] = __any_sync(0x0000ffffU, lane == 20) * 10 + __all_sync(0x0000ffffU, lane < 16);
  } else {
    mine[5] = __any_sync(0xffff0000U, lane == 20) * 10 + __all_sync(0xffff0000U, lane < 20);
  }
}

void count_kernel(float* sum, int* count) {
  atomicAdd(sum, 0.5F);
  atomicAdd(count, 1);
}

void block_sum_kernel(double* sums) {
  SharedMemory smem;
  auto* scratch = smem.take<double>(static_cast<int>(blockDim.x) / kWarpSize);
  const double first = block_sum(static_cast<double>(thread_index()), scratch);
  const double second = block_sum(1.0, scratch);
  sums[thread_index()] = first + 1000.0 * second;
}

/// Copies tile after tile through two stages, each read one iteration after its copy was started.
void staged_copy_kernel(const float* x, float* y, int tiles) {
  SharedMemory smem;
  float* stages[2] = {smem.take<float>(4 * kWarpSize), smem.take<float>(4 * kWarpSize)};
  const int per_tile = 4 * kWarpSize;
  const auto start = [&](int tile) {
    cp_async_16(stages[tile % 2] + 4 * thread_index(),
                x + (tile < tiles ? tile : 0) * per_tile + 4 * thread_index(), tile < tiles);
    cp_async_commit();
  };
  start(0);
  for (int tile = 0; tile < tiles; ++tile) {
    start(tile + 1);
    cp_async_wait<1>();
    __syncthreads();
    for (int i = thread_index(); i < per_tile; i += kWarpSize) {
      y[tile * per_tile + i] = stages[tile % 2][per_tile - 1 - i];
    }
    __syncthreads();
  }
  cp_async_wait<0>();
  y[tiles * per_tile + thread_index()] =
      stages[tiles % 2][4 * thread_index()];  // the tile that is not there: zeros
}

/// c [16, 8] = a [16, 16] · bᵀ [8, 16] by one warp: fragments by ldmatrix from shared memory.
void mma_kernel(const BFloat16* a, const BFloat16* b, float* c) {
  SharedMemory smem;
  auto* a_tile = smem.take<BFloat16>(16 * 16);
  auto* b_tile = smem.take<BFloat16>(8 * 16);
  const int lane = thread_index();
  for (int i = lane; i < 16 * 16; i += kWarpSize) {
    a_tile[i] = a[i];
  }
  for (int i = lane; i < 8 * 16; i += kWarpSize) {
    b_tile[i] = b[i];
  }
  __syncwarp();
  std::uint32_t a_fragment[4];
  ldmatrix_x4(a_fragment, a_tile + (lane % 16) * 16 + lane / 16 * 8);
  std::uint32_t b_fragment[4];  // the second half repeats the first
  ldmatrix_x4(b_fragment, b_tile + lane % 8 * 16 + lane / 8 % 2 * 8);
  const std::uint32_t b_pair[2] = {b_fragment[0], b_fragment[1]};
  float d[4] = {};
  mma_m16n8k16(d, a_fragment, b_pair);
  for (int r = 0; r < 4; ++r) {
    c[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = d[r];
  }
}

/// Each lane's two elements of the transposed matrices, in place.
void transpose_kernel(const std::uint16_t* x, std::uint16_t* y) {
  SharedMemory smem;
  auto* tile = smem.take<std::uint16_t>(4 * 64);
  const int lane = thread_index();
  for (int i = lane; i < 4 * 64; i += kWarpSize) {
    tile[i] = x[i];
  }
  __syncwarp();
  std::uint32_t registers[4];
  ldmatrix_x4_trans(registers, tile + lane * 8);
  for (int i = 0; i < 4; ++i) {
    const int at = i * 64 + lane / 4 * 8 + lane % 4 * 2;
    y[at] = static_cast<std::uint16_t>(registers[i] & 0xffffU);
    y[at + 1] = static_cast<std::uint16_t>(registers[i] >> 16U);
  }
}

}  // namespace

TEST_CASE("every thread of every block runs once with its indices", "[runner]") {
  for_each_schedule([] {
    std::vector<int> order(2 * 3 * 2 * 4 * 3 * 2, 0);
    launch("number_threads", number_threads_kernel, {.grid = {2, 3, 2}, .block = {4, 3, 2}}, order.data());
    std::vector<int> expected(order.size());
    std::iota(expected.begin(), expected.end(), 0);
    CHECK(order == expected);
  });
}

TEST_CASE("threads see behind a barrier what others wrote before it", "[runner]") {
  for_each_schedule([] {
    constexpr int kThreads = 96;
    constexpr int kBlocks = 3;
    std::vector<float> x(kThreads * kBlocks);
    std::iota(x.begin(), x.end(), 1.0F);
    std::vector<float> y(x.size());
    launch("reverse", reverse_kernel, {.grid = kBlocks, .block = kThreads, .shared_bytes = 2 * kThreads * 4},
           x.data(), y.data());
    for (int i = 0; i < kThreads * kBlocks; ++i) {
      const int at = i / kThreads * kThreads;
      const int next = (i - at + 1) % kThreads;
      CHECK(y[static_cast<std::size_t>(i)] == x[static_cast<std::size_t>(at + kThreads - 1 - (i - at))] +
                                                  x[static_cast<std::size_t>(at + kThreads - 1 - next)]);
    }
  });
}

TEST_CASE("lanes exchange values by their masks, in both branches of a warp", "[runner]") {
  for_each_schedule([] {
    std::vector<int> results(64 * 6);
    launch("warp", warp_kernel, {.grid = 1, .block = 64}, results.data());
    unsigned multiples_of_three = 0;
    for (unsigned lane = 0; lane < 32; lane += 3) {
      multiples_of_three |= 1U << lane;
    }
    for (int thread = 0; thread < 64; ++thread) {
      const int* mine = results.data() + thread * 6;
      const int lane = thread % 32;
      const int base = thread - lane;
      CHECK(mine[0] == base + 5);
      CHECK(mine[1] == base + (lane ^ 3));
      CHECK(mine[2] == (lane >= 2 ? thread - 2 : thread));
      CHECK(mine[3] == (lane + 4 < 32 ? thread + 4 : thread));
      CHECK(static_cast<unsigned>(mine[4]) == multiples_of_three);
      CHECK(mine[5] == (lane < 16 ? 1 : 10));
    }
  });
}

TEST_CASE("atomic additions of all threads arrive", "[runner]") {
  for_each_schedule([] {
    float sum = 0.0F;
    int count = 0;
    launch("count", count_kernel, {.grid = 5, .block = 64}, &sum, &count);
    CHECK(sum == 160.0F);
    CHECK(count == 320);
  });
}

TEST_CASE("a block's sum is the same in every thread and its scratch can be used again", "[runner]") {
  for_each_schedule([] {
    std::vector<double> sums(128);
    launch("block_sum", block_sum_kernel, {.grid = 1, .block = 128, .shared_bytes = 4 * 8}, sums.data());
    for (const double sum : sums) {
      CHECK(sum == 127.0 * 64.0 + 128000.0);
    }
  });
}

TEST_CASE("asynchronous copies in two stages arrive in their order, and zeros where nothing is there",
          "[runner]") {
  for_each_schedule([] {
    constexpr int kTiles = 5;
    constexpr int kPerTile = 128;
    std::vector<Pack<float>> aligned(kTiles * kPerTile / 4);
    float* x = aligned.data()->values;
    std::iota(x, x + kTiles * kPerTile, 1.0F);
    std::vector<float> y(kTiles * kPerTile + 32, 1.0F);
    launch("staged_copy", staged_copy_kernel, {.grid = 1, .block = 32, .shared_bytes = 2 * kPerTile * 4}, x,
           y.data(), kTiles);
    for (int i = 0; i < kTiles * kPerTile; ++i) {
      CHECK(y[static_cast<std::size_t>(i)] == x[i / kPerTile * kPerTile + kPerTile - 1 - i % kPerTile]);
    }
    for (int i = kTiles * kPerTile; i < kTiles * kPerTile + 32; ++i) {
      CHECK(y[static_cast<std::size_t>(i)] == 0.0F);
    }
  });
}

TEST_CASE("fragments loaded by ldmatrix multiply to the product of the matrices", "[runner]") {
  std::vector<BFloat16> a(16 * 16);
  std::vector<BFloat16> b(8 * 16);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = to_bfloat16(static_cast<float>((i * 37) % 29) - 14.0F);
  }
  for (std::size_t i = 0; i < b.size(); ++i) {
    b[i] = to_bfloat16(static_cast<float>((i * 53) % 31) - 15.0F);
  }
  for_each_schedule([&] {
    std::vector<float> c(16 * 8);
    launch("mma", mma_kernel, {.grid = 1, .block = 32, .shared_bytes = (16 + 8) * 16 * 2}, a.data(), b.data(),
           c.data());
    for (std::size_t m = 0; m < 16; ++m) {
      for (std::size_t n = 0; n < 8; ++n) {
        float expected = 0.0F;  // small integers: exact
        for (std::size_t k = 0; k < 16; ++k) {
          expected += caravan::to_float(a[m * 16 + k]) * caravan::to_float(b[n * 16 + k]);
        }
        CHECK(c[m * 8 + n] == expected);
      }
    }
  });
}

TEST_CASE("ldmatrix.trans transposes each of its four matrices", "[runner]") {
  std::vector<std::uint16_t> x(4 * 64);
  std::iota(x.begin(), x.end(), std::uint16_t{0});
  for_each_schedule([&] {
    std::vector<std::uint16_t> y(x.size());
    launch("transpose", transpose_kernel, {.grid = 1, .block = 32, .shared_bytes = 4 * 64 * 2}, x.data(),
           y.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(y[i / 64 * 64 + i % 8 * 8 + i % 64 / 8] == x[i]);
    }
  });
}

TEST_CASE("a bfloat16 is stored as core rounds it, and loaded exactly", "[runner]") {
  for (const float value : {0.0F, 1.0F, -1.00390625F, 3.0e38F, 1e-40F, 65535.9F}) {
    CHECK(store_float<BFloat16>(value).bits == to_bfloat16(value).bits);
    CHECK(load_float(to_bfloat16(value)) == caravan::to_float(to_bfloat16(value)));
  }
  CHECK(std::isnan(load_float(BFloat16{0xffff})));  // what untouched shared memory holds
}

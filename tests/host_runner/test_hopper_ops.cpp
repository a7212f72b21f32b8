// The host forms of kernels/cuda/hopper/ops.h by themselves: a product of tiles that bulk copies have
// brought, and what becomes of a kernel that leaves one rule out.
#include <catch2/catch.hpp>
#include <cmath>
#include <string>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/cuda/hopper/ops.h"
#include "kernels/cuda/tile_ops.h"

using namespace caravan;
using namespace caravan::test;
using namespace caravan::cuda::hopper;
using caravan::host_runner::KernelError;

namespace {

enum class Fault : std::uint8_t {
  kNone,
  kNoWaitForCopies,
  kFewerBytes,
  kMoreBytes,
  kMoreArrivals,
  kNoFence,
  kNoWaitForProduct,
  kRegistersTouched,
  kOverwritten,
};

constexpr int kRows = 64;
constexpr int kColumns = 128;
constexpr unsigned kTileBytes = kRows * kColumns * 2;

/// c [64, 64] = a [64, 128] · bᵀ, b [64, 128]; then d [64, 128] = c · b.
void product_kernel(Fault fault, TensorMap a, TensorMap b, float* c, float* d) {
  cuda::SharedMemory smem;
  unsigned char* tiles =
      aligned_tiles(smem.take<unsigned char>(1024 + 2 * static_cast<int>(kTileBytes) + 64));
  auto* full = reinterpret_cast<Barrier*>(tiles + 2 * kTileBytes);
  if (threadIdx.x == 0) {
    barrier_init(full, 1);
    const unsigned difference = fault == Fault::kFewerBytes  ? 0U - 128U
                                : fault == Fault::kMoreBytes ? 128U
                                                             : 0U;
    barrier_expect(full, 2 * kTileBytes + difference);
    for (int column = 0; column < kColumns; column += 64) {
      const unsigned panel = static_cast<unsigned>(column / 64 * kRows * 128);
      tma_load(tiles + panel, a, full, {column, 0, 0, 0});
      tma_load(tiles + kTileBytes + panel, b, full, {column, 0, 0, 0});
    }
    barrier_arrive(full);
    if (fault == Fault::kMoreArrivals) {
      barrier_arrive(full);
      barrier_arrive(full);
    }
  }
  __syncthreads();
  if (fault != Fault::kNoWaitForCopies) {
    barrier_wait(full, 0);
  }
  const int thread = static_cast<int>(threadIdx.x);
  float sums[8][4];
  const std::uint64_t rows = along_columns(shared_address(tiles));
  const std::uint64_t columns = along_columns(shared_address(tiles + kTileBytes));
  if (fault != Fault::kNoFence) {
    wgmma_fence();
  }
  for (int step = 0; step < kColumns / 16; ++step) {
    wgmma(sums, rows + columns_step(step, kRows), columns + columns_step(step, kRows), step > 0);
  }
  wgmma_commit();
  if (fault == Fault::kOverwritten && threadIdx.x == 0) {
    tma_load(tiles, a, full, {0, 0, 0, 0});
  }
  if (fault != Fault::kNoWaitForProduct) {
    wgmma_wait<0>();
  }
  if (fault != Fault::kNoWaitForProduct) {
    pin(sums);
  }
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 4; ++j) {
      c[accumulator_row(thread, j) * 64 + accumulator_column(thread, i, j)] = sums[i][j];
    }
  }
  if (fault == Fault::kNoWaitForProduct) {
    wgmma_wait<0>();
    return;
  }
  std::uint32_t packed[4][4];
  for (int k = 0; k < 4; ++k) {
    for (int i = 0; i < 4; ++i) {
      const float(&block)[4] = sums[2 * k + i / 2];
      packed[k][i] = cuda::pack_bf16(block[i % 2 * 2], block[i % 2 * 2 + 1]);
    }
  }
  float result[16][4] = {};
  const std::uint64_t down = along_rows(shared_address(tiles + kTileBytes), kRows);
  wgmma_fence();
  for (int k = 0; k < 4; ++k) {
    wgmma(result, packed[k], down + rows_step(k));
  }
  wgmma_commit();
  if (fault == Fault::kRegistersTouched) {
    pin(result);
  }
  wgmma_wait<0>();
  pin(result);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 4; ++j) {
      d[accumulator_row(thread, j) * kColumns + accumulator_column(thread, i, j)] = result[i][j];
    }
  }
}

/// Small whole numbers, so that every sum is exact and every product rounds to itself in bfloat16.
struct ProductProblem {
  TestTensor a{DType::kBFloat16, {kRows, kColumns}};
  TestTensor b{DType::kBFloat16, {kRows, kColumns}};
  TestTensor c{DType::kFloat32, {kRows, kRows}};
  TestTensor d{DType::kFloat32, {kRows, kColumns}};

  ProductProblem() {
    std::vector<double> ones(kRows * kColumns);
    std::vector<double> numbers(kRows * kColumns);
    for (std::size_t row = 0; row < kRows; ++row) {
      ones[row * kColumns + row * 37 % kColumns] = 1.0;  // one-hot rows: c picks elements of b
      for (std::size_t column = 0; column < kColumns; ++column) {
        numbers[row * kColumns + column] = static_cast<double>((row * 29 + column * 3) % 128) - 64.0;
      }
    }
    a.fill(ones);
    b.fill(numbers);
  }
  void run(Fault fault) {
    const auto map = [](TestTensor& x) {
      return tensor_map({x.view().data<BFloat16>(), 1, kRows, 1, kColumns}, kRows);
    };
    cuda::launch("product", product_kernel,
                 {.grid = 1, .block = 128, .shared_bytes = 2 * kTileBytes + 1024 + 64}, fault, map(a), map(b),
                 c.view().data<float>(), d.view().data<float>());
  }
  double c_at(std::size_t row, std::size_t column) const {
    return b.get(column * kColumns + row * 37 % kColumns);
  }
};

/// What the kernel throws, or "".
std::string error_of(Fault fault) {
  ProductProblem p;
  try {
    p.run(fault);
  } catch (const KernelError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("tiles come by bulk copies and are multiplied along columns and along rows", "[hopper]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  for_each_schedule([] {
    ProductProblem p;
    p.run(Fault::kNone);
    int wrong = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t column = 0; column < kRows; ++column) {
        wrong += p.c.get(row * kRows + column) == p.c_at(row, column) ? 0 : 1;
      }
      for (std::size_t column = 0; column < kColumns; ++column) {
        double sum = 0.0;
        for (std::size_t k = 0; k < kRows; ++k) {
          sum += p.c_at(row, k) * p.b.get(k * kColumns + column);
        }
        wrong += p.d.get(row * kColumns + column) == sum ? 0 : 1;
      }
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE("what a Hopper kernel may not leave out is noticed", "[hopper]") {
  if (host_runner::kThreadSanitizer) {
    return;
  }
  using Catch::Matchers::Contains;
  CHECK(error_of(Fault::kNone).empty());
  CHECK_THAT(error_of(Fault::kMoreBytes), Contains("no thread can go on") && Contains("mbarrier"));
  CHECK_THAT(error_of(Fault::kMoreArrivals),
             Contains("an arrival more than the barrier was initialised for") || Contains("overwritten"));
  CHECK_THAT(error_of(Fault::kNoFence), Contains("without wgmma_fence"));
  CHECK_THAT(error_of(Fault::kRegistersTouched), Contains("has not been waited for"));
  CHECK_THAT(error_of(Fault::kOverwritten), Contains("overwritten before the product was waited for"));
  for (const Fault fault : {Fault::kNoWaitForCopies, Fault::kNoWaitForProduct, Fault::kFewerBytes}) {
    INFO("fault " << static_cast<int>(fault));
    ProductProblem p;
    std::string error;
    try {
      p.run(fault);
    } catch (const KernelError& thrown) {
      error = thrown.what();
    }
    CHECK((!error.empty() || std::isnan(p.c.get(0))));
  }
}

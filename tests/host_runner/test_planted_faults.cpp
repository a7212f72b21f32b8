// Kernels that break a rule, and what is said about them. Without sanitizers a race shows as a wrong result
// under at least one schedule; ThreadSanitizer names it in one run; AddressSanitizer sees accesses past a
// piece of memory.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#endif

#include "host_runner/schedules.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/tile_ops.h"

using namespace caravan;
using namespace caravan::cuda;
using caravan::host_runner::KernelError;
using caravan::test::expect_race;
using caravan::test::kSchedules;

namespace {

int thread_index() {
  return static_cast<int>(threadIdx.x);
}

/// What a launch of `kernel` is answered with under every schedule: the text of its KernelError.
template <class... Parameters>
void expect_error(void (*kernel)(Parameters...), const LaunchShape& shape,
                  const std::vector<std::string>& words, std::type_identity_t<Parameters>... arguments) {
  for (const host_runner::Options& options : kSchedules) {
    host_runner::set_options(options);
    try {
      launch("planted", kernel, shape, arguments...);
      FAIL("no error under schedule " << host_runner::schedule_name(options.schedule));
    } catch (const KernelError& error) {
      for (const std::string& word : words) {
        CHECK_THAT(error.what(), Catch::Contains(word));
      }
    }
  }
  host_runner::set_options({});
}

#if defined(__SANITIZE_ADDRESS__)
void past_global_kernel(const float* x, float* y) {
  y[thread_index()] = x[thread_index() + 1];
}
void misaligned_pack_kernel(const float* x, float* y) {
  store_pack<4>(y, load_pack<4>(x));
}

/// Runs body in a child process, which has to die of AddressSanitizer; gives the report.
template <class Body>
std::string report_of_child(const Body& body) {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string report;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    report.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK((!WIFEXITED(status) || WEXITSTATUS(status) != 0));
  return report;
}
#endif

// ---- rules of barriers and warps

void divergent_barrier_kernel() {
  if (thread_index() < 32) {  // NOLINT(bugprone-branch-clone): two barriers, that is the fault
    __syncthreads();
  } else {
    __syncthreads();
  }
}
void barrier_of_half_kernel() {
  if (thread_index() < 32) {
    __syncthreads();
  }
}
void early_return_kernel(int count) {
  if (thread_index() >= count) {
    return;
  }
  __syncthreads();
}
void exited_lane_kernel(int* y) {
  if (thread_index() == 31) {
    return;
  }
  y[thread_index()] = __shfl_xor_sync(kAllLanes, thread_index(), 1);
}
void caller_outside_mask_kernel(int* y) {
  y[thread_index()] = __shfl_sync(0x0000ffffU, thread_index(), 0);
}
void source_outside_mask_kernel(int* y) {
  if (thread_index() < 16) {
    y[thread_index()] = __shfl_sync(0x0000ffffU, thread_index(), 20);
  }
}
void different_operations_kernel(int* y) {
  if (thread_index() % 2 == 0) {
    y[thread_index()] = __shfl_xor_sync(kAllLanes, 1, 1);
  } else {
    y[thread_index()] = __any_sync(kAllLanes, 1);
  }
}
void partial_warp_kernel(int* y) {
  y[thread_index()] = __shfl_xor_sync(kAllLanes, thread_index(), 1);
}

// ---- rules of memory

void too_much_shared_kernel() {
  SharedMemory smem;
  smem.take<float>(8);
  smem.take<float>(1);
}
void unequal_pieces_kernel() {
  SharedMemory smem;
  smem.take<float>(thread_index() < 16 ? 4 : 3);
}
void uninitialised_kernel(float* y) {
  SharedMemory smem;
  auto* tile = smem.take<float>(32);
  const int at = static_cast<int>(blockIdx.x) * kWarpSize + thread_index();
  y[at] = tile[thread_index()];
  tile[thread_index()] = 0.0F;
}
void past_shared_kernel(float* y) {
  SharedMemory smem;
  auto* tile = smem.take<float>(32);
  auto* other = smem.take<float>(32);
  tile[thread_index()] = 1.0F;
  other[thread_index()] = 2.0F;
  __syncthreads();
  y[thread_index()] = tile[thread_index() + 1];
}
void missing_wait_kernel(const float* x, float* y) {
  SharedMemory smem;
  auto* tile = smem.take<float>(128);
  cp_async_16(tile + 4 * thread_index(), x + 4 * thread_index(), true);
  cp_async_commit();
  __syncthreads();
  y[thread_index()] = tile[thread_index()];
}
/// Waits for the older of two groups and reads the younger.
void wait_too_weak_kernel(const float* x, float* y) {
  SharedMemory smem;
  auto* first = smem.take<float>(128);
  auto* second = smem.take<float>(128);
  cp_async_16(first + 4 * thread_index(), x + 4 * thread_index(), true);
  cp_async_commit();
  cp_async_16(second + 4 * thread_index(), x + 4 * thread_index(), true);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  y[thread_index()] = second[thread_index()];
}

// ---- races

template <bool kHasWriteReadBarrier, bool kHasReadWriteBarrier>
void rotate_twice_kernel(int* y) {
  SharedMemory smem;
  const int threads = static_cast<int>(blockDim.x);
  auto* tile = smem.take<int>(threads);
  int value = thread_index();
  for (int turn = 0; turn < 2; ++turn) {
    tile[thread_index()] = value;
    if (kHasWriteReadBarrier) {
      __syncthreads();
    }
    value = tile[(thread_index() + 1) % threads];
    if (kHasReadWriteBarrier) {
      __syncthreads();
    }
  }
  y[thread_index()] = value;
}
template <bool kHasWarpBarrier>
void rotate_in_warp_kernel(int* y) {
  SharedMemory smem;
  auto* tile = smem.take<int>(kWarpSize);
  tile[thread_index()] = thread_index();
  if (kHasWarpBarrier) {
    __syncwarp();
  }
  y[thread_index()] = tile[(thread_index() + 1) % kWarpSize];
}
void unsynchronised_sum_kernel(float* sum) {
  *sum += 1.0F;
}
void race_between_blocks_kernel(int* last) {
  if (thread_index() == 0) {
    *last = static_cast<int>(blockIdx.x);
  }
}

template <bool kWriteRead, bool kReadWrite>
bool rotates_twice() {
  constexpr int kThreads = 64;
  std::vector<int> y(kThreads, -1);
  launch("rotate_twice", rotate_twice_kernel<kWriteRead, kReadWrite>,
         {.grid = 1, .block = kThreads, .shared_bytes = kThreads * 4}, y.data());
  for (int i = 0; i < kThreads; ++i) {
    if (y[static_cast<std::size_t>(i)] != (i + 2) % kThreads) {
      return false;
    }
  }
  return true;
}
template <bool kHasWarpBarrier>
bool rotates_in_warp() {
  std::vector<int> y(kWarpSize, -1);
  launch("rotate_in_warp", rotate_in_warp_kernel<kHasWarpBarrier>,
         {.grid = 1, .block = kWarpSize, .shared_bytes = kWarpSize * 4}, y.data());
  for (int i = 0; i < kWarpSize; ++i) {
    if (y[static_cast<std::size_t>(i)] != (i + 1) % kWarpSize) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("a barrier that some threads reach elsewhere, or never, is named with its lines and threads",
          "[faults]") {
  expect_error(divergent_barrier_kernel, {.grid = 2, .block = 64},
               {"planted", "different barriers", "threads 0-31 wait in __syncthreads at",
                "threads 32-63 wait", "test_planted_faults.cpp:"});
  expect_error(barrier_of_half_kernel, {.grid = 1, .block = 64},
               {"no thread can go on", "threads 0-31 wait in __syncthreads", "threads 32-63 have returned"});
  expect_error(early_return_kernel, {.grid = 1, .block = 64},
               {"threads 0-49 wait in __syncthreads", "threads 50-63 have returned"}, 50);
}

TEST_CASE("a warp operation without one of its lanes is named", "[faults]") {
  std::vector<int> y(64);
  expect_error(exited_lane_kernel, {.grid = 1, .block = 32},
               {"threads 0-30 wait in __shfl_xor_sync with mask 0xffffffff", "threads 31 have returned"},
               y.data());
  expect_error(caller_outside_mask_kernel, {.grid = 1, .block = 32},
               {"__shfl_sync with mask 0x0000ffff, in which its own lane"}, y.data());
  expect_error(source_outside_mask_kernel, {.grid = 1, .block = 32},
               {"reads lane 20, which is not in mask 0x0000ffff"}, y.data());
  expect_error(different_operations_kernel, {.grid = 1, .block = 32},
               {"wait in __shfl_xor_sync", "wait in __ballot_sync"}, y.data());
  expect_error(partial_warp_kernel, {.grid = 1, .block = 48}, {"threads 32-47 wait in __shfl_xor_sync"},
               y.data());
}

TEST_CASE("shared memory beyond the launch, or taken unequally, is named", "[faults]") {
  expect_error(too_much_shared_kernel, {.grid = 1, .block = 32, .shared_bytes = 32},
               {"takes shared memory up to 36 bytes, of 32 the kernel was launched with"});
  expect_error(unequal_pieces_kernel, {.grid = 1, .block = 32, .shared_bytes = 64},
               {"of which another thread has taken"});
}

TEST_CASE("a launch beyond the limits of a GPU is refused", "[faults]") {
  const auto nothing = [] {};
  expect_error(+nothing, {.grid = 1, .block = 1056}, {"1056", "1 to 1024 threads"});
  expect_error(+nothing, {.grid = {1, 0, 1}, .block = 32}, {"no empty grid"});
  expect_error(+nothing, {.grid = {1, 1, 65536}, .block = 32}, {"grid.y and grid.z up to 65535"});
  expect_error(+nothing, {.grid = 1, .block = 32, .shared_bytes = 200000}, {"200000 bytes of shared memory"});
}

TEST_CASE("an exception thrown in a kernel leaves the launch, and the next launch runs", "[faults]") {
  std::vector<int> y(32);
  void (*const throwing)() = [] {
    if (threadIdx.x == 9) {
      throw std::out_of_range("thread 9");
    }
    __syncthreads();
  };
  CHECK_THROWS_AS(launch("throwing", throwing, {.grid = 1, .block = 32}), std::out_of_range);
  CHECK(rotates_in_warp<true>());
}

TEST_CASE("shared memory that nobody wrote is NaN, also in a later block", "[faults]") {
  std::vector<float> y(96, 0.0F);
  launch("uninitialised", uninitialised_kernel, {.grid = 3, .block = 32, .shared_bytes = 128}, y.data());
  for (const float value : y) {
    CHECK(std::isnan(value));
  }
}

TEST_CASE("a copy that was not waited for is NaN", "[faults]") {
  std::vector<Pack<float>> x(32, Pack<float>{{1.0F, 1.0F, 1.0F, 1.0F}});
  std::vector<float> y(32, 0.0F);
  launch("missing_wait", missing_wait_kernel, {.grid = 1, .block = 32, .shared_bytes = 512}, x.data()->values,
         y.data());
  CHECK(std::isnan(y[7]));
  launch("wait_too_weak", wait_too_weak_kernel, {.grid = 1, .block = 32, .shared_bytes = 1024},
         x.data()->values, y.data());
  CHECK(std::isnan(y[7]));
}

TEST_CASE("a read past a piece of shared memory is found", "[faults]") {
  std::vector<float> y(32, 0.0F);
  const auto run = [&] {
    launch("past_shared", past_shared_kernel, {.grid = 1, .block = 32, .shared_bytes = 256}, y.data());
  };
#if defined(__SANITIZE_ADDRESS__)
  const std::string report = report_of_child(run);
  CHECK_THAT(report, Catch::Contains("use-after-poison"));
  CHECK_THAT(report, Catch::Contains("past_shared_kernel"));
#else
  run();
  CHECK(y[30] == 1.0F);
  CHECK(std::isnan(y[31]));  // not the neighbouring piece
#endif
}

#if defined(__SANITIZE_ADDRESS__)
TEST_CASE("an access past a tensor, and a misaligned pack, are found", "[faults]") {
  std::vector<float> x(32, 1.0F);
  std::vector<float> y(32);
  CHECK_THAT(report_of_child([&] {
               launch("past_global", past_global_kernel, {.grid = 1, .block = 32}, x.data(), y.data());
             }),
             Catch::Contains("heap-buffer-overflow"));
  CHECK_THAT(report_of_child([&] {
               launch("misaligned", misaligned_pack_kernel, {.grid = 1, .block = 1}, x.data() + 1, y.data());
             }),
             Catch::Contains("misaligned address"));
}
#endif

TEST_CASE("kernels with all their barriers are right and reported by nobody", "[faults]") {
  test::for_each_schedule([] {
    CHECK(rotates_twice<true, true>());
    CHECK(rotates_in_warp<true>());
  });
}

TEST_CASE("a missing barrier between writing and reading is found", "[faults]") {
  expect_race([] { return rotates_twice<false, true>(); });
}
TEST_CASE("a missing barrier between reading and writing again is found", "[faults]") {
  expect_race([] { return rotates_twice<true, false>(); });
}
TEST_CASE("a missing __syncwarp is found", "[faults]") {
  expect_race([] { return rotates_in_warp<false>(); });
}

// No order of whole accesses makes these wrong: the sum is complete, and the blocks run one after another.
TEST_CASE("an unsynchronised sum and a race between blocks are found by ThreadSanitizer", "[faults]") {
  if (!host_runner::kThreadSanitizer) {
    return;
  }
  expect_race([] {
    float sum = 0.0F;
    launch("unsynchronised_sum", unsynchronised_sum_kernel, {.grid = 1, .block = 32}, &sum);
    return sum == 32.0F;
  });
  expect_race([] {
    int last = 0;
    launch("race_between_blocks", race_between_blocks_kernel, {.grid = 2, .block = 32}, &last);
    return last == 1;
  });
}

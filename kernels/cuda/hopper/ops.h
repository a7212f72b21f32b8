// The instructions of sm_90a that have no C++ form: warpgroup products (wgmma), bulk tensor copies (TMA), the
// barriers in shared memory they signal, register budgets. One function each, as in tile_ops.h, with a host
// form of the same signature (tests/host_runner/hopper_ops_host.cpp), so that the Hopper kernels are executed
// on the host too. Layouts and descriptors: layout.h.
//
// Only code for compute_90a has them: a kernel's body stands in #if defined(CARAVAN_HOPPER_CODE).
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/hopper/layout.h"
#include "kernels/cuda/hopper/maps.h"

#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CARAVAN_HOPPER_CODE
#endif

#if defined(__CUDACC__)
#define CARAVAN_GRID_CONSTANT __grid_constant__
#else
#define CARAVAN_GRID_CONSTANT
#endif

namespace caravan::cuda::hopper {

inline constexpr int kWarpgroup = 128;  // threads

/// A barrier in shared memory (mbarrier): a phase ends when all expected threads have arrived and all
/// expected bytes have come.
using Barrier = std::uint64_t;

/// Where a box begins in its tensor: a map's coordinates.
struct BoxPlace {
  int column, token, head, row;
};

#if defined(__CUDACC__)

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// The first multiple of kTileAlignment in a block's shared memory, of which that much more was taken.
__device__ inline unsigned char* aligned_tiles(unsigned char* shared) {
  const unsigned address = shared_address(shared);
  return shared + ((kTileAlignment - address % kTileAlignment) % kTileAlignment);
}

#if defined(CARAVAN_HOPPER_CODE)

// ---- barriers

__device__ inline void barrier_init(Barrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
/// By the thread that has initialised them, before the __syncthreads after which others use them.
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
/// The phase does not end before `bytes` more have come.
__device__ inline void barrier_expect(Barrier* barrier, unsigned bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
/// Returns when the phase of this parity has ended.
__device__ inline void barrier_wait(Barrier* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "bra again;\n"
      "done:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
/// Waits for the `threads` that come to this barrier of the block (1 to 15); 0 is __syncthreads.
__device__ inline void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- bulk tensor copies; one thread issues them

/// A box to shared memory (aligned to kTileAlignment); its bytes, those outside the tensor included and zero,
/// come to `barrier`.
__device__ inline void tma_load(void* shared, const TensorMap& map, Barrier* barrier, const BoxPlace& at) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4, %5}], [%6];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(at.column), "r"(at.token), "r"(at.head), "r"(at.row), "r"(shared_address(barrier))
      : "memory");
}
/// A box from shared memory; what lies outside the tensor is left out.
__device__ inline void tma_store(const TensorMap& map, const void* shared, const BoxPlace& at) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
      "r"(at.column), "r"(at.token), "r"(at.head), "r"(at.row), "r"(shared_address(shared))
      : "memory");
}
/// Until this thread's stores are written. The block must not end before.
__device__ inline void tma_store_wait() {
  asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
}
/// By every thread that has written shared memory with ordinary stores, before the barrier after which wgmma
/// or a bulk copy reads it.
__device__ inline void fence_shared_writes() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- registers

/// Every warp of the warpgroup calls it. The counts of a block's warpgroups may not add up to more than
/// those at launch.
template <int kRegisters>
__device__ void registers_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void registers_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
/// Keeps the compiler from moving accesses to registers across a wait, or past the fence before a product.
__device__ inline void pin(float& value) {
  asm volatile("" : "+f"(value)::"memory");
}
__device__ inline void pin(std::uint32_t& value) {
  asm volatile("" : "+r"(value)::"memory");
}
template <class T, int kBlocks>
__device__ void pin(T (&registers)[kBlocks][4]) {
#pragma unroll
  for (int i = 0; i < 4 * kBlocks; ++i) {
    pin(registers[i / 4][i % 4]);
  }
}

// ---- products of a warpgroup: d [64, N] (+)= a [64, 16] · b [16, N]; bfloat16 in, float accumulation

/// Before the first product, and again after registers of products (d or a) were written.
__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most kGroups groups of products are on their way; before, their registers may not be touched.
template <int kGroups>
__device__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

// Block i of 8 columns is d[i]: rows r and r + 8 of two neighbouring columns, as in mma.m16n8k16.
#define CARAVAN_D1(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define CARAVAN_D4(d, i) CARAVAN_D1(d, i), CARAVAN_D1(d, i + 1), CARAVAN_D1(d, i + 2), CARAVAN_D1(d, i + 3)
#define CARAVAN_D8(d) CARAVAN_D4(d, 0), CARAVAN_D4(d, 4)
#define CARAVAN_D16(d) CARAVAN_D4(d, 0), CARAVAN_D4(d, 4), CARAVAN_D4(d, 8), CARAVAN_D4(d, 12)
#define CARAVAN_NAMES32                                                                                   \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, "                                                                                                 \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define CARAVAN_NAMES64                                                                                   \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, "                                                                                                 \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, "  \
  "%43, "                                                                                                 \
  "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"

/// a and b from shared memory, both along_columns. `accumulate` false: d is overwritten.
__device__ inline void wgmma(float (&d)[8][4], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CARAVAN_NAMES32
      ", %32, %33, p, 1, 1, 0, 0;\n}\n"
      : CARAVAN_D8(d)
      : "l"(a), "l"(b), "r"(accumulate ? 1 : 0));
}
__device__ inline void wgmma(float (&d)[16][4], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " CARAVAN_NAMES64
      ", %64, %65, p, 1, 1, 0, 0;\n}\n"
      : CARAVAN_D16(d)
      : "l"(a), "l"(b), "r"(accumulate ? 1 : 0));
}
/// += ; a from registers: two neighbouring blocks of an accumulator, rounded and packed pair by pair, are one
/// as they stand. b along_rows.
__device__ inline void wgmma(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CARAVAN_NAMES32
               ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
               : CARAVAN_D8(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void wgmma(float (&d)[16][4], const std::uint32_t (&a)[4], std::uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " CARAVAN_NAMES64
               ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : CARAVAN_D16(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef CARAVAN_D1
#undef CARAVAN_D4
#undef CARAVAN_D8
#undef CARAVAN_D16
#undef CARAVAN_NAMES32
#undef CARAVAN_NAMES64

#endif  // CARAVAN_HOPPER_CODE

#else  // the host runner

#define CARAVAN_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/// Relative to what aligned_tiles has returned in this block.
unsigned shared_address(const void* pointer);
unsigned char* aligned_tiles(unsigned char* shared);

void barrier_init(Barrier* barrier, unsigned arrivals);
inline void fence_barrier_init() {}
void barrier_arrive(Barrier* barrier, CARAVAN_SITE);
void barrier_expect(Barrier* barrier, unsigned bytes, CARAVAN_SITE);
void barrier_wait(Barrier* barrier, std::uint32_t parity, CARAVAN_SITE);
void named_barrier(int id, int threads, CARAVAN_SITE);

void tma_load(void* shared, const TensorMap& map, Barrier* barrier, const BoxPlace& at, CARAVAN_SITE);
void tma_store(const TensorMap& map, const void* shared, const BoxPlace& at, CARAVAN_SITE);
void tma_store_wait();
void fence_shared_writes();

template <int kRegisters>
void registers_decrease() {}
template <int kRegisters>
void registers_increase() {}
/// That no product on its way reads or writes these registers.
void check_idle(const void* registers, std::size_t bytes, const char* file, int line);
template <class T, int kBlocks>
void pin(T (&registers)[kBlocks][4], CARAVAN_SITE) {
  check_idle(registers, sizeof(registers), file, line);
}

void wgmma_fence();
void wgmma_commit();
void wgmma_wait_at_most(int groups, CARAVAN_SITE);
template <int kGroups>
void wgmma_wait(CARAVAN_SITE) {
  wgmma_wait_at_most(kGroups, file, line);
}
void wgmma_issue(float* d, int blocks, std::uint64_t a, std::uint64_t b, bool accumulate, const char* file,
                 int line);
void wgmma_issue(float* d, int blocks, const std::uint32_t* a, std::uint64_t b, const char* file, int line);
template <int kBlocks>
void wgmma(float (&d)[kBlocks][4], std::uint64_t a, std::uint64_t b, bool accumulate, CARAVAN_SITE) {
  static_assert(kBlocks == 8 || kBlocks == 16);
  wgmma_issue(d[0], kBlocks, a, b, accumulate, file, line);
}
template <int kBlocks>
void wgmma(float (&d)[kBlocks][4], const std::uint32_t (&a)[4], std::uint64_t b, CARAVAN_SITE) {
  static_assert(kBlocks == 8 || kBlocks == 16);
  wgmma_issue(d[0], kBlocks, a, b, file, line);
}

#undef CARAVAN_SITE

#endif

}  // namespace caravan::cuda::hopper

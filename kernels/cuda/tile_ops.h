// Every instruction that has no C++ form, one function each. Inline PTX stands here and nowhere else; the
// host runner has a function of the same signature with the same fragment layouts
// (tests/host_runner/tile_ops_host.cpp).
//
// Layouts (PTX ISA, mma.m16n8k16), lane = 4 · group + member, two bfloat16 per register, the lower index in
// the low half:
//   a [16, 16]  a[0]: row group, columns 2·member, +1;  a[1]: row group + 8;  a[2], a[3]: the same, columns +
//   8 b [16, 8]   b[0]: rows 2·member, +1 of column group;  b[1]: rows + 8 d [16, 8]   d[0], d[1]: row group,
//   columns 2·member, +1;  d[2], d[3]: row group + 8
#pragma once

#include "kernels/cuda/device.h"

namespace caravan::cuda {

#if defined(__CUDACC__)

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// d += a · b for the whole warp; bfloat16 in, float accumulation.
__device__ inline void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four 8 × 8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
/// aligned); register i is (row group, columns 2·member, +1) of matrix i.
__device__ inline void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same of the transposed matrices.
__device__ inline void ldmatrix_x4_trans(std::uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

/// Starts copying 16 bytes from global to shared memory, zeros when !is_there (global is then not read). To
/// be read after cp_async_wait in this thread and a barrier for the others.
__device__ inline void cp_async_16(void* shared, const void* global, bool is_there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(is_there ? 16 : 0)
               : "memory");
}
/// Closes a group of copies of this thread.
__device__ inline void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most kGroups of this thread's groups are still on their way.
template <int kGroups>
__device__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

/// threadIdx.x, read again where it stands: what follows from it is then worked out again too, instead of
/// staying in registers all along.
__device__ inline int thread_index_again() {
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

/// 2^x by the special function unit: two units in the last place; 0 for -infinity and below 2^-126.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Two floats as a pair of bfloat16, `low` in the low half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

#else

void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  const char* file = __builtin_FILE(), int line = __builtin_LINE());
void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE());
void ldmatrix_x4_trans(std::uint32_t (&registers)[4], const void* row, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE());
void cp_async_16(void* shared, const void* global, bool is_there, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE());
void cp_async_commit();
void cp_async_wait_at_most(int groups);
template <int kGroups>
void cp_async_wait() {
  cp_async_wait_at_most(kGroups);
}

inline int thread_index_again() {
  return static_cast<int>(threadIdx.x);
}
inline float exp2_approx(float x) {
  return std::exp2(x);
}
inline std::uint32_t pack_bf16(float low, float high) {
  return static_cast<std::uint32_t>(to_bfloat16(low).bits) |
         (static_cast<std::uint32_t>(to_bfloat16(high).bits) << 16U);
}

#endif

}  // namespace caravan::cuda

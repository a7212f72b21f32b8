// Divides attention over threads; the arithmetic is in kernels/cpu/simd/.
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd_table.h"

namespace caravan::cpu {

/// Parallel over (row, head, block of queries).
template <class T>
void attention_forward(const simd::SimdOps<T>& ops, const AttentionForwardArgs& args, CpuScratch& scratch);
/// Parallel over (row, kv head): the heads of a group add to dk and dv in order, whatever the threads.
template <class T>
void attention_backward(const simd::SimdOps<T>& ops, const AttentionBackwardArgs& args, CpuScratch& scratch);

/// Parallel over tokens.
template <class T>
void attention_merge(const AttentionMergeArgs& args);

}  // namespace caravan::cpu

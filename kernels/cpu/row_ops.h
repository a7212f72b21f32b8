// Ops on independent rows or elements, divided over threads; the arithmetic is in kernels/cpu/simd/.
#pragma once

#include "caravan/backend/op_args.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd_table.h"

namespace caravan::cpu {

template <class T>
void embedding_forward(const EmbeddingForwardArgs& args);
/// Parallel over columns, so that the rows of one id are added in the order of t.
template <class T>
void embedding_backward(const simd::SimdOps<T>& ops, const EmbeddingBackwardArgs& args);
template <class T>
void rmsnorm_forward(const simd::SimdOps<T>& ops, const RmsNormForwardArgs& args);
/// dweight is summed over parts of the rows whose size depends on the number of rows alone, then over parts.
template <class T>
void rmsnorm_backward(const simd::SimdOps<T>& ops, const RmsNormBackwardArgs& args, CpuScratch& scratch);
template <class T>
void rope(const simd::SimdOps<T>& ops, const RopeArgs& args);
template <class T>
void swiglu_forward(const simd::SimdOps<T>& ops, const SwigluForwardArgs& args);
template <class T>
void swiglu_backward(const simd::SimdOps<T>& ops, const SwigluBackwardArgs& args);
template <class T>
void cross_entropy_stats(const simd::SimdOps<T>& ops, const CrossEntropyStatsArgs& args);
template <class T>
void cross_entropy_backward(const simd::SimdOps<T>& ops, const CrossEntropyBackwardArgs& args);
/// The bits of the steps apart; a row stays in the cache from its sum to its gradient.
template <class T>
void cross_entropy(const simd::SimdOps<T>& ops, const CrossEntropyArgs& args);
template <class T>
void add(const simd::SimdOps<T>& ops, const AddArgs& args);
template <class T>
void scale(const simd::SimdOps<T>& ops, const ScaleArgs& args);
template <class T>
void dropout(const simd::SimdOps<T>& ops, const DropoutArgs& args);
template <class T>
void adamw(const simd::SimdOps<T>& ops, const AdamwArgs& args);
/// Parts of fixed size are summed on their own, then in order.
template <class T>
void sum_squares(const simd::SimdOps<T>& ops, const SumSquaresArgs& args, CpuScratch& scratch);
template <class T>
void random_normal(const RandomNormalArgs& args);

/// Any dtype; contiguous.
void zero(const ZeroArgs& args);
/// Contiguous copies in parallel, strided ones row by row.
void copy(const CopyArgs& args);

}  // namespace caravan::cpu

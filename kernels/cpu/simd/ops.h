// The functions of one level's table; definitions beside their family.
#pragma once

#include "kernels/cpu/simd_table.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {

template <class T>
void rmsnorm_forward(const RmsNormForwardRows<T>& args);
template <class T>
void rmsnorm_backward(const RmsNormBackwardRows<T>& args);
template <class T>
void rope(const RopeRows<T>& args);
template <class T>
void swiglu_forward(const T* gate, const T* up, T* h, std::int64_t count);
template <class T>
void swiglu_backward(const SwigluBackwardElements<T>& args);
template <class T>
void cross_entropy_stats(const T* logits, std::int64_t width, T* row_max, T* row_sum);
template <class T>
void softmax_gradient(T* logits, std::int64_t width, T lse, T factor);
template <class T>
void add(const T* x, const T* z, T* y, std::int64_t count);
template <class T>
void scale(T* x, T factor, std::int64_t count);
template <class T>
void dropout(const DropoutRows<T>& args);
template <class T>
void adamw(const AdamwElements<T>& args);
template <class T>
double sum_squares(const T* x, std::int64_t count);
template <class T>
void row_dots(const RowDots<T>& args);
template <class T>
void pack_transposed(HeadRows<const T> rows, std::int64_t begin, std::int64_t end, std::int64_t head_dim,
                     T* out);
template <class T>
void attention_forward(const AttentionForwardBlock<T>& args);
template <class T>
void attention_backward(const AttentionBackwardHead<T>& args);

const SimdTable& table();

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

// The inner loops of the CPU backend, as a table of functions per scalar type. kernels/cpu/simd/ is compiled
// once per instruction set and gives one table each; dispatch.h chooses. Only plain data may stand here: this
// header is seen by code compiled for different instruction sets.
//
// All functions are pure loops over rows or elements: no allocation, no threads, no checks.
#pragma once

#include <cstdint>

namespace caravan::simd {

template <class T>
struct RmsNormForwardRows {
  const T* x;
  const T* delta;  // null: x is the sum
  T* sum;          // may be x
  const T* weight;
  T eps;
  T* y;
  T* rstd;
  std::int64_t rows;
  std::int64_t width;
};

template <class T>
struct RmsNormBackwardRows {
  const T* dy;
  const T* x;
  const T* weight;
  const T* rstd;
  T* dx;       // accumulated
  T* dweight;  // accumulated; null: not wanted
  std::int64_t rows;
  std::int64_t width;
};

template <class T>
struct RopeRows {
  T* x;
  const std::int32_t* positions;
  const T* cos;
  const T* sin;
  T sign;  // -1: backward
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t head_dim;
};

template <class T>
struct SwigluBackwardElements {
  const T* dh;
  const T* gate;
  const T* up;
  T* dgate;  // may be gate
  T* dup;    // may be up
  std::int64_t count;
};

/// backend/op_args.h says which elements a mask drops.
template <class T>
struct DropoutRows {
  const T* x;
  T* y;                             // may be x
  const std::int32_t* row_numbers;  // of the tokens, in the step's batch
  const std::int32_t* places;
  std::uint32_t site;
  std::uint32_t key[2];
  std::uint32_t threshold;  // words below it are dropped
  T factor;
  std::int64_t rows;
  std::int64_t width;
};

template <class T>
struct AdamwElements {
  T* param;
  const T* grad;
  T* m;
  T* v;
  std::int64_t count;
  T clip;
  T decay;  // lr · weight_decay
  T mix1;   // 1 − beta1
  T keep2;  // beta2
  T mix2;   // 1 − beta2
  T step;   // lr / bias_correction1
  T root_correction;
  T eps;
};

/// y[i] = Σ_k rows[i, k] · x[k], added to y or not: a product with one row, whose time is that of reading
/// `rows` once.
template <class T>
struct RowDots {
  const T* rows;  // contiguous, [count, width]
  const T* x;
  T* y;
  std::int64_t count;
  std::int64_t width;
  bool adds;
};

// ---- attention

/// Keys per block: packed keys are [blocks][E][kKeyBlock] (transposed, the last block padded with zeros).
inline constexpr std::int64_t kKeyBlock = 64;
/// Queries per block: a multiple of the register tile's rows.
inline constexpr std::int64_t kQueryBlock = 48;

/// One head's vectors: row i is at data + i · stride.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;
};

/// Contiguous copies of one kv head's keys and values, from key 0.
template <class T>
struct PackedKeys {
  T* transposed_keys;  // [blocks][E][kKeyBlock]
  T* values;           // forward: [keys][E]; backward: transposed as the keys
  T* keys;             // [keys][E], backward only
};

/// Up to kQueryBlock queries of one head.
template <class T>
struct AttentionForwardBlock {
  HeadRows<const T> q;
  HeadRows<const T> k;  // read only when nothing is packed
  HeadRows<const T> v;
  PackedKeys<T> packed;  // transposed_keys null: few queries, packing would not pay
  HeadRows<T> o;
  T* lse;
  const std::int32_t* first;  // query i sees the keys [first[i], last[i])
  const std::int32_t* last;
  std::int64_t queries;
  std::int64_t head_dim;
  T scale;
  T* scratch;  // attention_scratch(head_dim) elements
};

/// One query head; adds to dk and dv.
template <class T>
struct AttentionBackwardHead {
  HeadRows<const T> q;
  HeadRows<const T> o;
  HeadRows<const T> d_o;
  PackedKeys<T> packed;
  const T* lse;
  HeadRows<T> dq;
  HeadRows<T> dk;
  HeadRows<T> dv;
  const std::int32_t* first;
  const std::int32_t* last;
  std::int64_t queries;
  std::int64_t head_dim;
  T scale;
  T* scratch;
};

/// Elements of scratch for one call: three [kQueryBlock, E], two [kQueryBlock, kKeyBlock], three statistics.
inline constexpr std::int64_t attention_scratch(std::int64_t head_dim) {
  return kQueryBlock * (3 * head_dim + 2 * kKeyBlock + 3);
}

template <class T>
struct SimdOps {
  void (*rmsnorm_forward)(const RmsNormForwardRows<T>&);
  void (*rmsnorm_backward)(const RmsNormBackwardRows<T>&);
  void (*rope)(const RopeRows<T>&);
  void (*swiglu_forward)(const T* gate, const T* up, T* h, std::int64_t count);
  void (*swiglu_backward)(const SwigluBackwardElements<T>&);
  void (*cross_entropy_stats)(const T* logits, std::int64_t width, T* row_max, T* row_sum);
  /// logits = exp(logits − lse) · factor
  void (*softmax_gradient)(T* logits, std::int64_t width, T lse, T factor);
  void (*add)(const T* x, const T* z, T* y, std::int64_t count);
  void (*scale)(T* x, T factor, std::int64_t count);
  void (*dropout)(const DropoutRows<T>&);
  void (*adamw)(const AdamwElements<T>&);
  double (*sum_squares)(const T* x, std::int64_t count);
  void (*row_dots)(const RowDots<T>&);
  /// out = [blocks][E][kKeyBlock] from `keys` rows.
  void (*pack_transposed)(HeadRows<const T> rows, std::int64_t begin, std::int64_t end, std::int64_t head_dim,
                          T* out);
  void (*attention_forward)(const AttentionForwardBlock<T>&);
  void (*attention_backward)(const AttentionBackwardHead<T>&);
};

struct SimdTable {
  const char* name;
  SimdOps<float> float32;
  SimdOps<double> float64;
};

}  // namespace caravan::simd

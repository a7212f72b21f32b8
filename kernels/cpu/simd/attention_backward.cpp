#include "kernels/cpu/simd/attention.h"
#include "kernels/cpu/simd/ops.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

/// A block of queries while all key blocks pass by.
template <class T>
struct QueryBlock {
  T* q;      // [queries, E] times scale
  T* d_o;    // [queries, E]
  T* dq;     // [queries, E]
  T* p;      // [queries, kKeyBlock]
  T* ds;     // [queries, kKeyBlock]
  T* delta;  // [queries]
  const T* lse;
  const std::int32_t* first;
  const std::int32_t* last;
  std::int64_t queries;
};

/// p and dp of one row become p and ds within `columns`, zeros elsewhere in the block.
template <class T>
inline void gradient_row(const QueryBlock<T>& block, std::int64_t i, const Span& panel, const Span& columns) {
  T* p = block.p + i * kKeyBlock;
  T* ds = block.ds + i * kKeyBlock;
  if (columns.is_empty()) {
    fill_zero(p, kKeyBlock);
    fill_zero(ds, kKeyBlock);
    return;
  }
  const auto clear = [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; at += kLanes<T>) {
      store(p + at, Vec<T>{});
      store(ds + at, Vec<T>{});
    }
  };
  clear(0, panel.begin);
  const bool is_whole = columns.begin == panel.begin && columns.end == panel.end;
  const T lse = block.lse[i];
  const T delta = block.delta[i];
  for (std::int64_t at = panel.begin; at < panel.end; at += kLanes<T>) {
    Vec<T> probability = exp_of(load(p + at) - lse);
    Vec<T> gradient = probability * (load(ds + at) - delta);
    if (!is_whole) {
      const IntVec<T> is_visible = lanes_in<T>(columns, at);
      probability = is_visible ? probability : Vec<T>{};
      gradient = is_visible ? gradient : Vec<T>{};
    }
    store(p + at, probability);
    store(ds + at, gradient);
  }
  clear(panel.end, kKeyBlock);
}

/// p and ds of the block, and dq += ds k.
template <class T>
inline void query_side(const AttentionBackwardHead<T>& args, const QueryBlock<T>& block, std::int64_t base) {
  const std::int64_t head_dim = args.head_dim;
  const T* keys_t = args.packed.transposed_keys + base * head_dim;
  const T* values_t = args.packed.values + base * head_dim;
  for (std::int64_t i = 0; i < block.queries; i += kTileRows) {
    const std::int64_t rows = smaller_of(kTileRows, block.queries - i);
    const Span seen = visible_to_any(block.first + i, block.last + i, rows, base);
    const Span panel = seen.is_empty() ? Span{0, 0} : whole_vectors<T>(seen);
    const std::int64_t cols = panel.end - panel.begin;
    product<T>({block.q + i * head_dim, head_dim, 1}, {keys_t + panel.begin, kKeyBlock},
               {block.p + i * kKeyBlock + panel.begin, kKeyBlock}, rows, cols, head_dim, Start::kZero);
    product<T>({block.d_o + i * head_dim, head_dim, 1}, {values_t + panel.begin, kKeyBlock},
               {block.ds + i * kKeyBlock + panel.begin, kKeyBlock}, rows, cols, head_dim, Start::kZero);
    for (std::int64_t row = i; row < i + rows; ++row) {
      gradient_row(block, row, panel, visible_columns(block.first, block.last, row, base));
    }
    if (!seen.is_empty()) {
      product<T>({block.ds + i * kKeyBlock + seen.begin, kKeyBlock, 1},
                 {args.packed.keys + (base + seen.begin) * head_dim, head_dim},
                 {block.dq + i * head_dim, head_dim}, rows, head_dim, seen.end - seen.begin, Start::kAdd);
    }
  }
}

/// dv += pᵀ d_o and dk += dsᵀ q for the block's keys, each group of keys with the queries that may see it.
template <class T>
inline void key_side(const AttentionBackwardHead<T>& args, const QueryBlock<T>& block, std::int64_t base) {
  const std::int64_t head_dim = args.head_dim;
  const Span seen = visible_to_any(block.first, block.last, block.queries, base);
  for (std::int64_t j = seen.begin; j < seen.end; j += kTileRows) {
    const std::int64_t rows = smaller_of(kTileRows, seen.end - j);
    Span queries = {0, block.queries};
    while (queries.begin < queries.end && block.last[queries.begin] <= base + j) {
      ++queries.begin;
    }
    while (queries.begin < queries.end && block.first[queries.end - 1] >= base + j + rows) {
      --queries.end;
    }
    const std::int64_t count = queries.end - queries.begin;
    const std::int64_t corner = queries.begin * kKeyBlock + j;
    const std::int64_t row = queries.begin * head_dim;
    product<T>({block.p + corner, 1, kKeyBlock}, {block.d_o + row, head_dim},
               {args.dv.data + (base + j) * args.dv.stride, args.dv.stride}, rows, head_dim, count,
               Start::kAdd);
    product<T>({block.ds + corner, 1, kKeyBlock}, {block.q + row, head_dim},
               {args.dk.data + (base + j) * args.dk.stride, args.dk.stride}, rows, head_dim, count,
               Start::kAdd);
  }
}

}  // namespace

template <class T>
void attention_backward(const AttentionBackwardHead<T>& args) {
  const std::int64_t head_dim = args.head_dim;
  QueryBlock<T> block{};
  block.q = args.scratch;
  block.d_o = block.q + kQueryBlock * head_dim;
  block.dq = block.d_o + kQueryBlock * head_dim;
  block.p = block.dq + kQueryBlock * head_dim;
  block.ds = block.p + kQueryBlock * kKeyBlock;
  block.delta = block.ds + kQueryBlock * kKeyBlock;
  for (std::int64_t begin = 0; begin < args.queries; begin += kQueryBlock) {
    block.queries = smaller_of(kQueryBlock, args.queries - begin);
    block.lse = args.lse + begin;
    block.first = args.first + begin;
    block.last = args.last + begin;
    const HeadRows<const T> d_o = {args.d_o.data + begin * args.d_o.stride, args.d_o.stride};
    gather_scaled<T>({args.q.data + begin * args.q.stride, args.q.stride}, block.queries, head_dim,
                     args.scale, block.q);
    gather_scaled<T>(d_o, block.queries, head_dim, T{1}, block.d_o);
    fill_zero(block.dq, block.queries * head_dim);
    for (std::int64_t i = 0; i < block.queries; ++i) {
      block.delta[i] = dot(d_o.data + i * d_o.stride, args.o.data + (begin + i) * args.o.stride, head_dim);
    }
    const Span keys = visible_keys(block.first, block.last, block.queries);
    for (std::int64_t base = keys.begin / kKeyBlock * kKeyBlock; base < keys.end; base += kKeyBlock) {
      query_side(args, block, base);
      key_side(args, block, base);
    }
    const HeadRows<const T> dq = {block.dq, head_dim};
    for (std::int64_t i = 0; i < block.queries; ++i) {
      gather_scaled<T>({dq.data + i * head_dim, head_dim}, 1, head_dim, args.scale,
                       args.dq.data + (begin + i) * args.dq.stride);
    }
  }
}

template <class T>
void pack_transposed(HeadRows<const T> rows, std::int64_t begin, std::int64_t end, std::int64_t head_dim,
                     T* out) {
  constexpr std::int64_t kSide = 16 / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t base = begin / kKeyBlock * kKeyBlock; base < end; base += kKeyBlock) {
    T* block = out + base * head_dim;
    const Span keys = {larger_of(begin - base, 0), smaller_of(end - base, kKeyBlock)};
    if (keys.end - keys.begin < kKeyBlock) {
      fill_zero(block, head_dim * kKeyBlock);
    }
    std::int64_t j = keys.begin;
    for (; j + kSide <= keys.end; j += kSide) {
      for (std::int64_t e = 0; e < head_dim; ++e) {
        for (std::int64_t lane = 0; lane < kSide; ++lane) {
          block[e * kKeyBlock + j + lane] = rows.data[(base + j + lane) * rows.stride + e];
        }
      }
    }
    for (; j < keys.end; ++j) {
      for (std::int64_t e = 0; e < head_dim; ++e) {
        block[e * kKeyBlock + j] = rows.data[(base + j) * rows.stride + e];
      }
    }
  }
}

template void attention_backward(const AttentionBackwardHead<float>&);
template void attention_backward(const AttentionBackwardHead<double>&);
template void pack_transposed(HeadRows<const float>, std::int64_t, std::int64_t, std::int64_t, float*);
template void pack_transposed(HeadRows<const double>, std::int64_t, std::int64_t, std::int64_t, double*);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

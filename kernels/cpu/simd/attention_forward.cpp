#include "kernels/cpu/simd/attention.h"
#include "kernels/cpu/simd/ops.h"

namespace caravan::simd::CARAVAN_SIMD_LEVEL {
namespace {

/// Running state of a block of queries.
template <class T>
struct OnlineSoftmax {
  T* maximum;  // [kQueryBlock] −inf before the first visible key
  T* sum;      // [kQueryBlock] Σ exp(s − maximum)
  T* output;   // [kQueryBlock, E] Σ exp(s − maximum) v
};

/// Scores of one row become exp(s − maximum) within `columns`, zeros elsewhere in `panel`.
template <class T>
inline void softmax_row(T* scores, const Span& panel, const Span& columns, const OnlineSoftmax<T>& state,
                        std::int64_t i, std::int64_t head_dim) {
  if (columns.is_empty()) {
    fill_zero(scores + panel.begin, panel.end - panel.begin);
    return;
  }
  const bool is_whole = columns.begin == panel.begin && columns.end == panel.end;
  const Vec<T> lowest = splat(-static_cast<T>(__builtin_inf()));
  Vec<T> largest = lowest;
  for (std::int64_t at = panel.begin; at < panel.end; at += kLanes<T>) {
    const Vec<T> score = load(scores + at);
    largest = larger<T>(is_whole ? score : (lanes_in<T>(columns, at) ? score : lowest), largest);
  }
  const T in_block = max_of<T>(largest);
  const T before = state.maximum[i];
  const T maximum = in_block > before ? in_block : before;
  Vec<T> sum{};
  for (std::int64_t at = panel.begin; at < panel.end; at += kLanes<T>) {
    const Vec<T> value = exp_of(load(scores + at) - maximum);
    const Vec<T> p = is_whole ? value : (lanes_in<T>(columns, at) ? value : Vec<T>{});
    store(scores + at, p);
    sum += p;
  }
  state.maximum[i] = maximum;
  if (maximum == before) {
    state.sum[i] += sum_of<T>(sum);
    return;
  }
  const T correction = inline_exp(before - maximum);
  state.sum[i] = state.sum[i] * correction + sum_of<T>(sum);
  T* output = state.output + i * head_dim;
#pragma omp simd
  for (std::int64_t e = 0; e < head_dim; ++e) {
    output[e] *= correction;
  }
}

/// Scores of a panel of queries against the columns of a block.
template <class T>
inline void scores_of(const AttentionForwardBlock<T>& args, const T* q, std::int64_t rows, std::int64_t base,
                      const Span& columns, T* scores) {
  const std::int64_t head_dim = args.head_dim;
  if (args.packed.transposed_keys != nullptr) {
    const T* block = args.packed.transposed_keys + base * head_dim;
    product<T>({q, head_dim, 1}, {block + columns.begin, kKeyBlock}, {scores + columns.begin, kKeyBlock},
               rows, columns.end - columns.begin, head_dim, Start::kZero);
    return;
  }
  for (std::int64_t j = columns.begin; j < columns.end; ++j) {
    for (std::int64_t i = 0; i < rows; ++i) {
      scores[i * kKeyBlock + j] = dot(q + i * head_dim, args.k.data + (base + j) * args.k.stride, head_dim);
    }
  }
}

/// One block of keys for all queries: scores, softmax, then the values, so that each packed block stays in
/// cache while every panel passes over it.
template <class T>
inline void forward_block(const AttentionForwardBlock<T>& args, const OnlineSoftmax<T>& state, const T* q,
                          T* scores, std::int64_t base) {
  const std::int64_t head_dim = args.head_dim;
  for (std::int64_t i = 0; i < args.queries; i += kTileRows) {
    const std::int64_t rows = smaller_of(kTileRows, args.queries - i);
    const Span seen = visible_to_any(args.first + i, args.last + i, rows, base);
    if (seen.is_empty()) {
      continue;
    }
    // Unpacked keys end with the visible ones; packed ones are padded with zeros to the block's end.
    const Span panel = whole_vectors<T>(seen);
    T* panel_scores = scores + i * kKeyBlock;
    scores_of(args, q + i * head_dim, rows, base, args.packed.transposed_keys != nullptr ? panel : seen,
              panel_scores);
    for (std::int64_t row = 0; row < rows; ++row) {
      softmax_row(panel_scores + row * kKeyBlock, panel,
                  visible_columns(args.first, args.last, i + row, base), state, i + row, head_dim);
    }
  }
  const bool is_packed = args.packed.values != nullptr;
  const T* values = is_packed ? args.packed.values : args.v.data;
  const std::int64_t stride = is_packed ? head_dim : args.v.stride;
  for (std::int64_t i = 0; i < args.queries; i += kTileRows) {
    const std::int64_t rows = smaller_of(kTileRows, args.queries - i);
    const Span seen = visible_to_any(args.first + i, args.last + i, rows, base);
    if (!seen.is_empty()) {
      product<T>({scores + i * kKeyBlock + seen.begin, kKeyBlock, 1},
                 {values + (base + seen.begin) * stride, stride}, {state.output + i * head_dim, head_dim},
                 rows, head_dim, seen.end - seen.begin, Start::kAdd);
    }
  }
}

}  // namespace

template <class T>
void attention_forward(const AttentionForwardBlock<T>& args) {
  const std::int64_t head_dim = args.head_dim;
  T* q = args.scratch;
  T* scores = q + kQueryBlock * head_dim;
  const OnlineSoftmax<T> state = {scores + kQueryBlock * kKeyBlock, scores + kQueryBlock * (kKeyBlock + 1),
                                  scores + kQueryBlock * (kKeyBlock + 2)};
  gather_scaled(args.q, args.queries, head_dim, args.scale, q);
  fill_zero(state.output, args.queries * head_dim);
  fill_zero(state.sum, args.queries);
  for (std::int64_t i = 0; i < args.queries; ++i) {
    state.maximum[i] = -static_cast<T>(__builtin_inf());
  }
  const Span keys = visible_keys(args.first, args.last, args.queries);
  for (std::int64_t base = keys.begin / kKeyBlock * kKeyBlock; base < keys.end; base += kKeyBlock) {
    forward_block(args, state, q, scores, base);
  }
  for (std::int64_t i = 0; i < args.queries; ++i) {
    const bool is_blind = args.last[i] <= args.first[i];
    const T inverse = is_blind ? T{} : T{1} / state.sum[i];
    args.lse[i] = state.maximum[i] + (is_blind ? T{} : log_of(state.sum[i]));
    T* o = args.o.data + i * args.o.stride;
    const T* output = state.output + i * head_dim;
#pragma omp simd
    for (std::int64_t e = 0; e < head_dim; ++e) {
      o[e] = output[e] * inverse;
    }
  }
}

template void attention_forward(const AttentionForwardBlock<float>&);
template void attention_forward(const AttentionForwardBlock<double>&);

}  // namespace caravan::simd::CARAVAN_SIMD_LEVEL

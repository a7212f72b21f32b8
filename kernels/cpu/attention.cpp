#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cstring>

#include "caravan/core/error.h"
#include "caravan/core/parallel_for.h"
#include "kernels/reference/attention.h"

namespace caravan::cpu {
namespace {

using simd::HeadRows;
using simd::kKeyBlock;
using simd::kQueryBlock;

/// Query i of the batch sees the keys [first[i], last[i]) of its row: key_index does not decrease (checked,
/// since nothing else would show it), so what lies between document_start and query_index is contiguous.
struct VisibleKeys {
  const std::int32_t* first;
  const std::int32_t* last;
};

VisibleKeys find_visible_keys(const AttentionShape& shape, const AttentionMask& mask, CpuScratch& scratch) {
  const std::int64_t queries = shape.batch * shape.query_len;
  auto* first = scratch.ranges.get<std::int32_t>(2 * queries);
  std::int32_t* last = first + queries;
  const auto* query_index = mask.query_index.data<std::int32_t>();
  const auto* document_start = mask.document_start.data<std::int32_t>();
  for (std::int64_t row = 0; row < shape.batch; ++row) {
    const std::int32_t* keys = mask.key_index.data<std::int32_t>() + row * shape.key_len;
    CARAVAN_CHECK(std::is_sorted(keys, keys + shape.key_len), "the key indices of row {} are not in order",
                  row);
  }
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int32_t* keys = mask.key_index.data<std::int32_t>() + i / shape.query_len * shape.key_len;
    const std::int32_t* end = keys + shape.key_len;
    first[i] = static_cast<std::int32_t>(std::lower_bound(keys, end, document_start[i]) - keys);
    last[i] = static_cast<std::int32_t>(std::upper_bound(keys, end, query_index[i]) - keys);
  }
  return {first, last};
}

/// Keys any query of a row sees.
struct KeyRange {
  std::int64_t begin;
  std::int64_t end;
};

KeyRange keys_of_row(const AttentionShape& shape, const VisibleKeys& visible, std::int64_t row) {
  KeyRange range = {shape.key_len, 0};
  for (std::int64_t i = row * shape.query_len; i < (row + 1) * shape.query_len; ++i) {
    if (visible.first[i] < visible.last[i]) {
      range.begin = std::min<std::int64_t>(range.begin, visible.first[i]);
      range.end = std::max<std::int64_t>(range.end, visible.last[i]);
    }
  }
  return range;
}

/// Vectors of one head in a [rows, heads · E] tensor, from row `begin`.
template <class T>
HeadRows<T> head_rows(const TensorView& view, std::int64_t begin, std::int64_t head, std::int64_t head_dim) {
  using Element = std::remove_const_t<T>;
  const std::int64_t stride = view.dim(1);
  return {view.data<Element>() + begin * stride + head * head_dim, stride};
}

template <class T>
void copy_rows(const HeadRows<const T>& rows, const KeyRange& range, std::int64_t head_dim, T* out) {
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    std::copy_n(rows.data + j * rows.stride, head_dim, out + j * head_dim);
  }
}

/// Elements of one kv head's keys, rounded up to whole blocks.
std::int64_t packed_size(const AttentionShape& shape) {
  return (shape.key_len + kKeyBlock - 1) / kKeyBlock * kKeyBlock * shape.head_dim;
}

/// Packs what forward needs of all kv heads: transposed keys, then values. Null when there are so few queries
/// that packing costs more than it saves (generation).
template <class T>
T* pack_for_forward(const simd::SimdOps<T>& ops, const AttentionForwardArgs& args, const VisibleKeys& visible,
                    CpuScratch& scratch) {
  constexpr std::int64_t kFewQueries = 8;
  const AttentionShape& shape = args.shape;
  if (shape.query_len * shape.n_heads / shape.n_kv_heads <= kFewQueries) {
    return nullptr;
  }
  const std::int64_t size = packed_size(shape);
  T* packed = scratch.keys.get<T>(2 * size * shape.batch * shape.n_kv_heads);
  parallel_for(shape.batch * shape.n_kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t row = task / shape.n_kv_heads;
      const std::int64_t kv_head = task % shape.n_kv_heads;
      const KeyRange range = keys_of_row(shape, visible, row);
      T* out = packed + 2 * size * task;
      ops.pack_transposed(head_rows<const T>(args.k, row * shape.key_len, kv_head, shape.head_dim),
                          range.begin, range.end, shape.head_dim, out);
      copy_rows(head_rows<const T>(args.v, row * shape.key_len, kv_head, shape.head_dim), range,
                shape.head_dim, out + size);
    }
  });
  return packed;
}

/// One block of queries of one head; `task` counts rows, heads and blocks, blocks fastest.
template <class T>
void forward_task(const simd::SimdOps<T>& ops, const AttentionForwardArgs& args, const VisibleKeys& visible,
                  T* packed, T* memory, std::int64_t task) {
  const AttentionShape& shape = args.shape;
  const std::int64_t head_dim = shape.head_dim;
  const std::int64_t blocks = (shape.query_len + kQueryBlock - 1) / kQueryBlock;
  const std::int64_t head = task / blocks % shape.n_heads;
  const std::int64_t row = task / blocks / shape.n_heads;
  const std::int64_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
  const std::int64_t begin = task % blocks * kQueryBlock;
  const std::int64_t query = row * shape.query_len + begin;
  simd::AttentionForwardBlock<T> block{};
  block.q = head_rows<const T>(args.q, query, head, head_dim);
  block.k = head_rows<const T>(args.k, row * shape.key_len, kv_head, head_dim);
  block.v = head_rows<const T>(args.v, row * shape.key_len, kv_head, head_dim);
  block.o = head_rows<T>(args.o, query, head, head_dim);
  if (packed != nullptr) {
    block.packed.transposed_keys = packed + 2 * packed_size(shape) * (row * shape.n_kv_heads + kv_head);
    block.packed.values = block.packed.transposed_keys + packed_size(shape);
  }
  block.lse = args.lse.data<T>() + head * shape.batch * shape.query_len + query;
  block.first = visible.first + query;
  block.last = visible.last + query;
  block.queries = std::min(kQueryBlock, shape.query_len - begin);
  block.head_dim = head_dim;
  block.scale = static_cast<T>(shape.scale);
  block.scratch = memory;
  ops.attention_forward(block);
}

/// All heads of one group of one row, in order.
template <class T>
void backward_task(const simd::SimdOps<T>& ops, const AttentionBackwardArgs& args, const VisibleKeys& visible,
                   T* memory, std::int64_t row, std::int64_t kv_head) {
  const AttentionShape& shape = args.shape;
  const std::int64_t head_dim = shape.head_dim;
  const std::int64_t size = packed_size(shape);
  const std::int64_t key = row * shape.key_len;
  const std::int64_t query = row * shape.query_len;
  const std::int64_t group = shape.n_heads / shape.n_kv_heads;
  const KeyRange range = keys_of_row(shape, visible, row);

  simd::AttentionBackwardHead<T> head{};
  head.packed = {memory, memory + size, memory + 2 * size};
  const auto keys = head_rows<const T>(args.k, key, kv_head, head_dim);
  const auto values = head_rows<const T>(args.v, key, kv_head, head_dim);
  ops.pack_transposed(keys, range.begin, range.end, head_dim, head.packed.transposed_keys);
  ops.pack_transposed(values, range.begin, range.end, head_dim, head.packed.values);
  copy_rows(keys, range, head_dim, head.packed.keys);
  head.dk = head_rows<T>(args.dk, key, kv_head, head_dim);
  head.dv = head_rows<T>(args.dv, key, kv_head, head_dim);
  head.first = visible.first + query;
  head.last = visible.last + query;
  head.queries = shape.query_len;
  head.head_dim = head_dim;
  head.scale = static_cast<T>(shape.scale);
  head.scratch = memory + 3 * size;
  for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    head.q = head_rows<const T>(args.q, query, h, head_dim);
    head.o = head_rows<const T>(args.o, query, h, head_dim);
    head.d_o = head_rows<const T>(args.d_o, query, h, head_dim);
    head.dq = head_rows<T>(args.dq, query, h, head_dim);
    head.lse = args.lse.data<T>() + h * shape.batch * shape.query_len + query;
    ops.attention_backward(head);
  }
}

}  // namespace

template <class T>
void attention_forward(const simd::SimdOps<T>& ops, const AttentionForwardArgs& args, CpuScratch& scratch) {
  const AttentionShape& shape = args.shape;
  if (args.o.numel() == 0) {
    return;
  }
  const VisibleKeys visible = find_visible_keys(shape, args.mask, scratch);
  T* packed = pack_for_forward(ops, args, visible, scratch);
  const ThreadScratch<T> memory(scratch.threads, simd::attention_scratch(shape.head_dim));
  const std::int64_t blocks = (shape.query_len + kQueryBlock - 1) / kQueryBlock;
  parallel_for(shape.batch * shape.n_heads * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      forward_task(ops, args, visible, packed, memory.mine(), task);
    }
  });
}

template <class T>
void attention_backward(const simd::SimdOps<T>& ops, const AttentionBackwardArgs& args, CpuScratch& scratch) {
  const AttentionShape& shape = args.shape;
  for (const TensorView* gradient : {&args.dk, &args.dv}) {
    std::fill_n(gradient->data<T>(), gradient->numel(), T{});
  }
  if (args.q.numel() == 0) {
    return;
  }
  const VisibleKeys visible = find_visible_keys(shape, args.mask, scratch);
  const ThreadScratch<T> memory(scratch.threads,
                                3 * packed_size(shape) + simd::attention_scratch(shape.head_dim));
  parallel_for(shape.batch * shape.n_kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      backward_task(ops, args, visible, memory.mine(), task / shape.n_kv_heads, task % shape.n_kv_heads);
    }
  });
}

template <class T>
void attention_merge(const AttentionMergeArgs& args) {
  constexpr std::int64_t kTokens = 16;
  parallel_for(args.o.dim(0), kTokens, [&](std::int64_t begin, std::int64_t end) {
    reference::attention_merge<T>(args, begin, end);
  });
}

template void attention_forward(const simd::SimdOps<float>&, const AttentionForwardArgs&, CpuScratch&);
template void attention_forward(const simd::SimdOps<double>&, const AttentionForwardArgs&, CpuScratch&);
template void attention_backward(const simd::SimdOps<float>&, const AttentionBackwardArgs&, CpuScratch&);
template void attention_backward(const simd::SimdOps<double>&, const AttentionBackwardArgs&, CpuScratch&);
template void attention_merge<float>(const AttentionMergeArgs&);
template void attention_merge<double>(const AttentionMergeArgs&);

}  // namespace caravan::cpu

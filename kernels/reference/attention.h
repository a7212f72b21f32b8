// Grouped-query attention, one query at a time: the definition the blocked versions are measured against.
// The derivation of the backward pass is docs/derivations/attention.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

namespace detail {

/// One query head of one batch row: where its vectors are.
template <class T>
class AttentionHead {
 public:
  AttentionHead(const AttentionShape& shape, const AttentionMask& mask, std::int64_t row, std::int64_t head)
      : shape_(shape),
        query_index_(mask.query_index.data<std::int32_t>() + row * shape.query_len),
        key_index_(mask.key_index.data<std::int32_t>() + row * shape.key_len),
        document_start_(mask.document_start.data<std::int32_t>() + row * shape.query_len),
        row_(row),
        head_(head),
        kv_head_(head / (shape.n_heads / shape.n_kv_heads)) {}

  bool sees(std::int64_t i, std::int64_t j) const {
    return document_start_[i] <= key_index_[j] && key_index_[j] <= query_index_[i];
  }
  /// Vector of query i in a [B·Sq, H·E] tensor.
  T* query(const TensorView& view, std::int64_t i) const {
    return view.data<T>() + ((row_ * shape_.query_len + i) * shape_.n_heads + head_) * shape_.head_dim;
  }
  /// Vector of key j in a [B·Sk, G·E] tensor.
  T* key(const TensorView& view, std::int64_t j) const {
    return view.data<T>() + ((row_ * shape_.key_len + j) * shape_.n_kv_heads + kv_head_) * shape_.head_dim;
  }
  /// Element of query i in an [H, B·Sq] tensor.
  T& statistic(const TensorView& view, std::int64_t i) const {
    return view.data<T>()[(head_ * shape_.batch + row_) * shape_.query_len + i];
  }
  T dot(const T* a, const T* b) const {
    T sum{};
    for (std::int64_t e = 0; e < shape_.head_dim; ++e) {
      sum += a[e] * b[e];
    }
    return sum;
  }
  /// y += factor · x over one head's width.
  void add_scaled(T* y, T factor, const T* x) const {
    for (std::int64_t e = 0; e < shape_.head_dim; ++e) {
      y[e] += factor * x[e];
    }
  }

 private:
  const AttentionShape& shape_;
  const std::int32_t* query_index_;
  const std::int32_t* key_index_;
  const std::int32_t* document_start_;
  std::int64_t row_;
  std::int64_t head_;
  std::int64_t kv_head_;
};

/// Calls body(head) for every batch row and query head, heads of a row in order.
template <class T, class Body>
void for_each_head(const AttentionShape& shape, const AttentionMask& mask, Body&& body) {
  for (std::int64_t row = 0; row < shape.batch; ++row) {
    for (std::int64_t head = 0; head < shape.n_heads; ++head) {
      body(AttentionHead<T>(shape, mask, row, head));
    }
  }
}

}  // namespace detail

/// s = scale · q kᵀ over visible keys;  lse = log Σ exp(s);  o = Σ exp(s − lse) v
template <class T>
void attention_forward(const AttentionForwardArgs& args) {
  const AttentionShape& shape = args.shape;
  const T scale = static_cast<T>(shape.scale);
  std::vector<T> scores(static_cast<std::size_t>(shape.key_len));
  detail::for_each_head<T>(shape, args.mask, [&](const detail::AttentionHead<T>& head) {
    for (std::int64_t i = 0; i < shape.query_len; ++i) {
      T maximum = static_cast<T>(-std::numeric_limits<double>::infinity());
      bool sees_any = false;
      for (std::int64_t j = 0; j < shape.key_len; ++j) {
        if (head.sees(i, j)) {
          const T score = scale * head.dot(head.query(args.q, i), head.key(args.k, j));
          scores[static_cast<std::size_t>(j)] = score;
          maximum = !sees_any || real_part(score) > real_part(maximum) ? score : maximum;
          sees_any = true;
        }
      }
      T sum{};
      for (std::int64_t j = 0; j < shape.key_len; ++j) {
        if (head.sees(i, j)) {
          sum += std::exp(scores[static_cast<std::size_t>(j)] - maximum);
        }
      }
      T& lse = head.statistic(args.lse, i);
      lse = sees_any ? maximum + std::log(sum) : maximum;
      T* o = head.query(args.o, i);
      std::fill(o, o + shape.head_dim, T{});
      for (std::int64_t j = 0; j < shape.key_len; ++j) {
        if (head.sees(i, j)) {
          head.add_scaled(o, std::exp(scores[static_cast<std::size_t>(j)] - lse), head.key(args.v, j));
        }
      }
    }
  });
}

/// With p = exp(s − lse) and delta = Σ_e do · o:  dv = pᵀ do,  ds = p · (do vᵀ − delta),  dq = scale · ds k,
/// dk = scale · dsᵀ q
template <class T>
void attention_backward(const AttentionBackwardArgs& args) {
  const AttentionShape& shape = args.shape;
  const T scale = static_cast<T>(shape.scale);
  for (const TensorView* gradient : {&args.dq, &args.dk, &args.dv}) {
    const auto all = elements<T>(*gradient);
    std::fill(all.begin(), all.end(), T{});
  }
  detail::for_each_head<T>(shape, args.mask, [&](const detail::AttentionHead<T>& head) {
    for (std::int64_t i = 0; i < shape.query_len; ++i) {
      const T* q = head.query(args.q, i);
      const T* d_o = head.query(args.d_o, i);
      const T delta = head.dot(d_o, head.query(args.o, i));
      for (std::int64_t j = 0; j < shape.key_len; ++j) {
        if (!head.sees(i, j)) {
          continue;
        }
        const T* k = head.key(args.k, j);
        const T p = std::exp(scale * head.dot(q, k) - head.statistic(args.lse, i));
        head.add_scaled(head.key(args.dv, j), p, d_o);
        const T ds = p * (head.dot(d_o, head.key(args.v, j)) - delta);
        head.add_scaled(head.query(args.dq, i), scale * ds, k);
        head.add_scaled(head.key(args.dk, j), scale * ds, q);
      }
    }
  });
}

/// Tokens [begin, end):  lse' = log(exp(lse) + exp(lse_part)),  o' = exp(lse − lse') · o + exp(lse_part −
/// lse') · o_part
template <class T>
void attention_merge(const AttentionMergeArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t tokens = args.o.dim(0);
  const std::int64_t n_heads = args.lse.dim(0);
  const std::int64_t head_dim = n_heads > 0 ? args.o.dim(1) / n_heads : 0;
  const auto saw_nothing = [](const T& lse) {
    return real_part(lse) == -std::numeric_limits<double>::infinity();
  };
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t head = 0; head < n_heads; ++head) {
      T& lse = args.lse.data<T>()[head * tokens + t];
      const T part = args.lse_part.data<T>()[head * tokens + t];
      if (saw_nothing(part)) {
        continue;
      }
      const std::int64_t at = (t * n_heads + head) * head_dim;
      T* o = args.o.data<T>() + at;
      const T* o_part = args.o_part.data<T>() + at;
      if (saw_nothing(lse)) {
        lse = part;
        std::copy(o_part, o_part + head_dim, o);
        continue;
      }
      const T larger = real_part(part) > real_part(lse) ? part : lse;
      const T merged = larger + std::log(std::exp(lse - larger) + std::exp(part - larger));
      const T keep = std::exp(lse - merged);
      const T take = std::exp(part - merged);
      for (std::int64_t e = 0; e < head_dim; ++e) {
        o[e] = keep * o[e] + take * o_part[e];
      }
      lse = merged;
    }
  }
}

}  // namespace caravan::reference

#include "kernels/cpu/row_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "caravan/core/counter_rng.h"
#include "caravan/core/parallel_for.h"
#include "kernels/reference/dropout.h"
#include "kernels/reference/embedding.h"
#include "kernels/reference/rope.h"

namespace caravan::cpu {
namespace {

/// Null when undefined.
template <class T>
T* optional_data(const TensorView& view) {
  return view.defined() ? view.data<T>() : nullptr;
}

template <class T>
T* advanced(T* data, std::int64_t count) {
  return data == nullptr ? nullptr : data + count;
}

/// Calls body(begin, count) for pieces of [0, elements).
template <class Body>
void for_elements(std::int64_t elements, const Body& body) {
  parallel_for(elements, kGrainElements,
               [&](std::int64_t begin, std::int64_t end) { body(begin, end - begin); });
}

}  // namespace

template <class T>
void embedding_forward(const EmbeddingForwardArgs& args) {
  reference::check_ids(args.ids, reference::table_rows(args.weight, args.vocab_size));
  const std::int64_t width = args.weight.dim(1);
  const std::int64_t rows = args.weight.dim(0);
  const T* weight = args.weight.data<T>();
  const auto* ids = args.ids.data<std::int32_t>();
  T* y = args.y.data<T>();
  parallel_for(args.ids.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t row = ids[t] - args.vocab_begin;
      if (row >= 0 && row < rows) {
        std::copy_n(weight + row * width, width, y + t * width);
      } else {
        std::fill_n(y + t * width, width, T{});
      }
    }
  });
}

template <class T>
void embedding_backward(const simd::SimdOps<T>& ops, const EmbeddingBackwardArgs& args) {
  constexpr std::int64_t kColumns = 64;  // whole cache lines per thread
  reference::check_ids(args.ids, reference::table_rows(args.dweight, args.vocab_size));
  const std::int64_t width = args.dweight.dim(1);
  const std::int64_t rows = args.dweight.dim(0);
  const T* dy = args.dy.data<T>();
  const auto* ids = args.ids.data<std::int32_t>();
  T* dweight = args.dweight.data<T>();
  const std::int64_t count = args.ids.numel();
  parallel_for(width, kColumns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t local = ids[t] - args.vocab_begin;
      if (local >= 0 && local < rows) {
        T* row = dweight + local * width + begin;
        ops.add(row, dy + t * width + begin, row, end - begin);
      }
    }
  });
}

template <class T>
void rmsnorm_forward(const simd::SimdOps<T>& ops, const RmsNormForwardArgs& args) {
  const std::int64_t width = args.weight.dim(0);
  parallel_for(args.rstd.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * width;
    ops.rmsnorm_forward({.x = args.x.data<T>() + at,
                         .delta = advanced(optional_data<T>(args.delta), at),
                         .sum = advanced(optional_data<T>(args.sum), at),
                         .weight = args.weight.data<T>(),
                         .eps = static_cast<T>(args.eps),
                         .y = args.y.data<T>() + at,
                         .rstd = args.rstd.data<T>() + begin,
                         .rows = end - begin,
                         .width = width});
  });
}

template <class T>
void rmsnorm_backward(const simd::SimdOps<T>& ops, const RmsNormBackwardArgs& args, CpuScratch& scratch) {
  constexpr std::int64_t kFewestRows = 32;
  constexpr std::int64_t kMostParts = 64;
  const std::int64_t width = args.weight.dim(0);
  const std::int64_t rows = args.rstd.numel();
  const std::int64_t rows_per_part = std::max(kFewestRows, (rows + kMostParts - 1) / kMostParts);
  const std::int64_t parts = (rows + rows_per_part - 1) / rows_per_part;
  T* dweight = optional_data<T>(args.dweight);
  T* partials = dweight == nullptr ? nullptr : scratch.partials.get<T>(parts * width);
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      T* partial = advanced(partials, part * width);
      if (partial != nullptr) {
        std::fill_n(partial, width, T{});
      }
      const std::int64_t begin = part * rows_per_part;
      const std::int64_t at = begin * width;
      ops.rmsnorm_backward({.dy = args.dy.data<T>() + at,
                            .x = args.x.data<T>() + at,
                            .weight = args.weight.data<T>(),
                            .rstd = args.rstd.data<T>() + begin,
                            .dx = args.dx.data<T>() + at,
                            .dweight = partial,
                            .rows = std::min(rows_per_part, rows - begin),
                            .width = width});
    }
  });
  if (dweight != nullptr) {
    parallel_for(width, grain_rows(parts), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = 0; part < parts; ++part) {
        ops.add(dweight + begin, partials + part * width + begin, dweight + begin, end - begin);
      }
    });
  }
}

template <class T>
void rope(const simd::SimdOps<T>& ops, const RopeArgs& args) {
  reference::check_positions(args);
  const std::int64_t width = args.x.dim(1);
  parallel_for(args.positions.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    ops.rope({.x = args.x.data<T>() + begin * width,
              .positions = args.positions.data<std::int32_t>() + begin,
              .cos = args.cos.data<T>(),
              .sin = args.sin.data<T>(),
              .sign = args.direction == RopeDirection::kForward ? T{1} : T{-1},
              .rows = end - begin,
              .heads = width / args.head_dim,
              .head_dim = args.head_dim});
  });
}

template <class T>
void swiglu_forward(const simd::SimdOps<T>& ops, const SwigluForwardArgs& args) {
  for_elements(args.h.numel(), [&](std::int64_t at, std::int64_t count) {
    ops.swiglu_forward(args.gate.data<T>() + at, args.up.data<T>() + at, args.h.data<T>() + at, count);
  });
}

template <class T>
void swiglu_backward(const simd::SimdOps<T>& ops, const SwigluBackwardArgs& args) {
  for_elements(args.dh.numel(), [&](std::int64_t at, std::int64_t count) {
    ops.swiglu_backward({.dh = args.dh.data<T>() + at,
                         .gate = args.gate.data<T>() + at,
                         .up = args.up.data<T>() + at,
                         .dgate = args.dgate.data<T>() + at,
                         .dup = args.dup.data<T>() + at,
                         .count = count});
  });
}

template <class T>
void cross_entropy_stats(const simd::SimdOps<T>& ops, const CrossEntropyStatsArgs& args) {
  const std::int64_t width = args.logits.dim(1);
  const auto* targets = args.targets.data<std::int32_t>();
  parallel_for(args.targets.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      const T* row = args.logits.data<T>() + c * width;
      ops.cross_entropy_stats(row, width, args.row_max.data<T>() + c, args.row_sum.data<T>() + c);
      const std::int64_t column = targets[c] - args.vocab_begin;
      args.target_logit.data<T>()[c] = column >= 0 && column < width ? row[column] : T{};
    }
  });
}

/// Turns a row of logits into their gradient; `column` is the target's, or of no column here.
template <class T>
void logits_gradient(const simd::SimdOps<T>& ops, T* row, std::int64_t width, std::int64_t column, T lse,
                     float weight, const StepScalars& scalars) {
  if (weight == 0.0F) {
    std::fill_n(row, width, T{});
    return;
  }
  const T factor =
      static_cast<T>(static_cast<double>(weight) * scalars.inv_valid_tokens * scalars.loss_scale);
  const bool is_here = column >= 0 && column < width;
  const T at_target = is_here ? (std::exp(row[column] - lse) - T{1}) * factor : T{};
  ops.softmax_gradient(row, width, lse, factor);
  if (is_here) {
    row[column] = at_target;
  }
}

template <class T>
void cross_entropy_backward(const simd::SimdOps<T>& ops, const CrossEntropyBackwardArgs& args) {
  const std::int64_t width = args.logits.dim(1);
  const auto* targets = args.targets.data<std::int32_t>();
  const auto* weights = args.target_weights.data<float>();
  const T* lse = args.lse.data<T>();
  parallel_for(args.targets.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      logits_gradient(ops, args.logits.data<T>() + c * width, width, targets[c] - args.vocab_begin, lse[c],
                      weights[c], *args.scalars);
    }
  });
}

template <class T>
void cross_entropy(const simd::SimdOps<T>& ops, const CrossEntropyArgs& args) {
  const std::int64_t width = args.logits.dim(1);
  const auto* targets = args.targets.data<std::int32_t>();
  const auto* weights = args.target_weights.data<float>();
  parallel_for(args.targets.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      T* row = args.logits.data<T>() + c * width;
      T row_max{};
      T row_sum{};
      ops.cross_entropy_stats(row, width, &row_max, &row_sum);
      const T lse = row_max + std::log(row_sum);
      const T at_target = targets[c] >= 0 && targets[c] < width ? row[targets[c]] : T{};
      args.losses.data<T>()[c] = weights[c] == 0.0F ? T{} : static_cast<T>(weights[c]) * (lse - at_target);
      if (args.logits_after == LogitsAfter::kGradient) {
        logits_gradient(ops, row, width, targets[c], lse, weights[c], *args.scalars);
      }
    }
  });
}

template <class T>
void add(const simd::SimdOps<T>& ops, const AddArgs& args) {
  for_elements(args.y.numel(), [&](std::int64_t at, std::int64_t count) {
    ops.add(args.x.data<T>() + at, args.z.data<T>() + at, args.y.data<T>() + at, count);
  });
}

template <class T>
void scale(const simd::SimdOps<T>& ops, const ScaleArgs& args) {
  for_elements(args.x.numel(), [&](std::int64_t at, std::int64_t count) {
    ops.scale(args.x.data<T>() + at, static_cast<T>(args.factor), count);
  });
}

template <class T>
void dropout(const simd::SimdOps<T>& ops, const DropoutArgs& args) {
  const std::int64_t width = args.x.dim(1);
  const auto key = reference::philox_key(args.scalars->dropout_key);
  parallel_for(args.rows.numel(), grain_rows(width), [&](std::int64_t begin, std::int64_t end) {
    ops.dropout({.x = args.x.data<T>() + begin * width,
                 .y = args.y.data<T>() + begin * width,
                 .row_numbers = args.rows.data<std::int32_t>() + begin,
                 .places = args.places.data<std::int32_t>() + begin,
                 .site = args.site,
                 .key = {key[0], key[1]},
                 .threshold = reference::dropout_threshold(args.rate),
                 .factor = static_cast<T>(1.0 / (1.0 - args.rate)),
                 .rows = end - begin,
                 .width = width});
  });
}

template <class T>
void adamw(const simd::SimdOps<T>& ops, const AdamwArgs& args) {
  const StepScalars& scalars = *args.scalars;
  const UpdateState& state = *args.state;
  if (state.is_skipped != 0) {
    return;
  }
  for_elements(args.param.numel(), [&](std::int64_t at, std::int64_t count) {
    ops.adamw({.param = args.param.data<T>() + at,
               .grad = args.grad.data<T>() + at,
               .m = args.m.data<T>() + at,
               .v = args.v.data<T>() + at,
               .count = count,
               .clip = static_cast<T>(state.gradient_factor),
               .decay = static_cast<T>(scalars.lr * args.weight_decay),
               .mix1 = static_cast<T>(1.0 - args.beta1),
               .keep2 = static_cast<T>(args.beta2),
               .mix2 = static_cast<T>(1.0 - args.beta2),
               .step = static_cast<T>(scalars.lr / state.bias_correction1),
               .root_correction = static_cast<T>(state.bias_correction2_sqrt),
               .eps = static_cast<T>(args.eps)});
  });
}

template <class T>
void sum_squares(const simd::SimdOps<T>& ops, const SumSquaresArgs& args, CpuScratch& scratch) {
  const std::int64_t count = args.x.numel();
  const std::int64_t parts = (count + kGrainElements - 1) / kGrainElements;
  auto* partials = scratch.partials.get<double>(parts);
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      const std::int64_t begin = part * kGrainElements;
      partials[part] = ops.sum_squares(args.x.data<T>() + begin, std::min(kGrainElements, count - begin));
    }
  });
  double sum = 0.0;
  for (std::int64_t part = 0; part < parts; ++part) {
    sum += partials[part];
  }
  *args.result.data<double>() += sum;
}

template <class T>
void random_normal(const RandomNormalArgs& args) {
  const CounterRng rng(args.seed, args.stream);
  const std::int64_t cols = args.y.dim(args.y.rank() - 1);
  T* y = args.y.data<T>();
  for_elements(args.y.numel(), [&](std::int64_t at, std::int64_t count) {
    for (std::int64_t element = at; element < at + count; ++element) {
      const std::int64_t row = args.row_begin + element / cols;
      const std::int64_t index = row * args.global_cols + args.col_begin + element % cols;
      y[element] = static_cast<T>(args.standard_deviation * rng.normal(static_cast<std::uint64_t>(index)));
    }
  });
}

// ---- instantiations

#define CARAVAN_INSTANTIATE(T)                                                                      \
  template void embedding_forward<T>(const EmbeddingForwardArgs&);                                  \
  template void embedding_backward(const simd::SimdOps<T>&, const EmbeddingBackwardArgs&);          \
  template void rmsnorm_forward(const simd::SimdOps<T>&, const RmsNormForwardArgs&);                \
  template void rmsnorm_backward(const simd::SimdOps<T>&, const RmsNormBackwardArgs&, CpuScratch&); \
  template void rope(const simd::SimdOps<T>&, const RopeArgs&);                                     \
  template void swiglu_forward(const simd::SimdOps<T>&, const SwigluForwardArgs&);                  \
  template void swiglu_backward(const simd::SimdOps<T>&, const SwigluBackwardArgs&);                \
  template void cross_entropy_stats(const simd::SimdOps<T>&, const CrossEntropyStatsArgs&);         \
  template void cross_entropy_backward(const simd::SimdOps<T>&, const CrossEntropyBackwardArgs&);   \
  template void cross_entropy(const simd::SimdOps<T>&, const CrossEntropyArgs&);                    \
  template void add(const simd::SimdOps<T>&, const AddArgs&);                                       \
  template void scale(const simd::SimdOps<T>&, const ScaleArgs&);                                   \
  template void dropout(const simd::SimdOps<T>&, const DropoutArgs&);                               \
  template void adamw(const simd::SimdOps<T>&, const AdamwArgs&);                                   \
  template void sum_squares(const simd::SimdOps<T>&, const SumSquaresArgs&, CpuScratch&);           \
  template void random_normal<T>(const RandomNormalArgs&)

CARAVAN_INSTANTIATE(float);
CARAVAN_INSTANTIATE(double);

}  // namespace caravan::cpu

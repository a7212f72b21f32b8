// Cross entropy over a chunk of logits: in three steps, so that a vocabulary split over ranks can combine the
// statistics between the first and the second, and at once. The derivation is
// docs/derivations/cross_entropy.md.
#pragma once

#include <cmath>
#include <limits>

#include "caravan/backend/op_args.h"
#include "kernels/reference/scalar.h"

namespace caravan::reference {

/// row_max = max logit;  row_sum = Σ exp(logit − row_max);  target_logit = logit of the target, 0 if
/// elsewhere
template <class T>
void cross_entropy_stats(const CrossEntropyStatsArgs& args) {
  const auto width = static_cast<std::size_t>(args.logits.dim(1));
  const auto logits = elements<T>(args.logits);
  const auto targets = elements<std::int32_t>(args.targets);
  const auto row_max = elements<T>(args.row_max);
  const auto row_sum = elements<T>(args.row_sum);
  const auto target_logit = elements<T>(args.target_logit);
  for (std::size_t c = 0; c < targets.size(); ++c) {
    const auto row = logits.subspan(c * width, width);
    row_max[c] = static_cast<T>(-std::numeric_limits<double>::infinity());
    for (const T& logit : row) {
      row_max[c] = real_part(logit) > real_part(row_max[c]) ? logit : row_max[c];
    }
    row_sum[c] = T{};
    for (const T& logit : row) {
      row_sum[c] += std::exp(logit - row_max[c]);
    }
    const std::int64_t column = targets[c] - args.vocab_begin;
    const bool is_here = column >= 0 && column < args.logits.dim(1);
    target_logit[c] = is_here ? row[static_cast<std::size_t>(column)] : T{};
  }
}

/// row_sum *= exp(row_max − common_max), 0 stays 0;  row_max = common_max
template <class T>
void cross_entropy_rescale(const CrossEntropyRescaleArgs& args) {
  const auto common_max = elements<T>(args.common_max);
  const auto row_max = elements<T>(args.row_max);
  const auto row_sum = elements<T>(args.row_sum);
  for (std::size_t c = 0; c < row_sum.size(); ++c) {
    row_sum[c] *= row_sum[c] == T{} ? T{} : std::exp(row_max[c] - common_max[c]);
    row_max[c] = common_max[c];
  }
}

/// lse = row_max + log(row_sum);  losses = target_weights · (lse − target_logit)
template <class T>
void cross_entropy_loss(const CrossEntropyLossArgs& args) {
  const auto row_max = elements<T>(args.row_max);
  const auto row_sum = elements<T>(args.row_sum);
  const auto target_logit = elements<T>(args.target_logit);
  const auto weights = elements<float>(args.target_weights);
  const auto lse = elements<T>(args.lse);
  const auto losses = elements<T>(args.losses);
  for (std::size_t c = 0; c < losses.size(); ++c) {
    lse[c] = row_max[c] + std::log(row_sum[c]);
    losses[c] = weights[c] == 0.0F ? T{} : static_cast<T>(weights[c]) * (lse[c] - target_logit[c]);
  }
}

/// dlogits = (exp(logit − lse) − [column is the target]) · target_weight · inv_valid_tokens · loss_scale
template <class T>
void cross_entropy_backward(const CrossEntropyBackwardArgs& args) {
  const auto width = static_cast<std::size_t>(args.logits.dim(1));
  const auto logits = elements<T>(args.logits);
  const auto targets = elements<std::int32_t>(args.targets);
  const auto weights = elements<float>(args.target_weights);
  const auto lse = elements<T>(args.lse);
  for (std::size_t c = 0; c < targets.size(); ++c) {
    const T factor = static_cast<T>(static_cast<double>(weights[c]) * args.scalars->inv_valid_tokens *
                                    args.scalars->loss_scale);
    for (std::size_t v = 0; v < width; ++v) {
      T& logit = logits[c * width + v];
      const bool is_target = args.vocab_begin + static_cast<std::int64_t>(v) == targets[c];
      logit = weights[c] == 0.0F ? T{} : (std::exp(logit - lse[c]) - T(is_target ? 1 : 0)) * factor;
    }
  }
}

/// The steps above, a row at a time.
template <class T>
void cross_entropy(const CrossEntropyArgs& args) {
  for (std::int64_t c = 0; c < args.targets.numel(); ++c) {
    T row_max{};
    T row_sum{};
    T target_logit{};
    T lse{};
    const auto number = [](T& value) { return TensorView(&value, DTypeOf<T>::kValue, {1}); };
    const TensorView logits = args.logits.rows(c, c + 1);
    const TensorView targets = args.targets.rows(c, c + 1);
    const TensorView weights = args.target_weights.rows(c, c + 1);
    cross_entropy_stats<T>({.logits = logits,
                            .targets = targets,
                            .row_max = number(row_max),
                            .row_sum = number(row_sum),
                            .target_logit = number(target_logit)});
    cross_entropy_loss<T>({.row_max = number(row_max),
                           .row_sum = number(row_sum),
                           .target_logit = number(target_logit),
                           .target_weights = weights,
                           .lse = number(lse),
                           .losses = args.losses.rows(c, c + 1)});
    if (args.logits_after == LogitsAfter::kGradient) {
      cross_entropy_backward<T>({.logits = logits,
                                 .targets = targets,
                                 .target_weights = weights,
                                 .lse = number(lse),
                                 .scalars = args.scalars});
    }
  }
}

}  // namespace caravan::reference

// Cross-entropy kernels against the reference in double: the steps apart, and at once.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/loss.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr std::int64_t kRows = 5;

/// Everything the four steps touch. Statistics are float32 in the kernels, double in the reference.
struct Chunk {
  TestTensor logits, targets, weights, row_max, row_sum, target_logit, common_max, lse, losses;
  StepScalars scalars{.inv_valid_tokens = 0.25};

  Chunk(std::int64_t width, std::int64_t offset, DType dtype, std::int32_t vocab_size)
      : logits(dtype, {kRows, width}, offset),
        targets(DType::kInt32, {kRows}),
        weights(DType::kFloat32, {kRows}),
        row_max(DType::kFloat32, {kRows}),
        row_sum(DType::kFloat32, {kRows}),
        target_logit(DType::kFloat32, {kRows}),
        common_max(DType::kFloat32, {kRows}),
        lse(DType::kFloat32, {kRows}),
        losses(DType::kFloat32, {kRows}) {
    logits.random(1, -6.0, 6.0);
    targets.ints({0, vocab_size - 1, vocab_size / 2, vocab_size / 3, 0});
    weights.fill({1.0, 1.0, 0.0, 0.5, 1.0});  // the third does not count
  }
};

double statistics_error(const Chunk& c) {
  return std::max(
      {c.row_max.error(), c.row_sum.error(), c.target_logit.error(), c.lse.error(), c.losses.error()});
}

void steps(std::int64_t width, std::int64_t offset, std::int64_t vocab_begin, DType dtype) {
  INFO(width << " columns from " << vocab_begin << ", offset " << offset << ", " << dtype_name(dtype));
  Chunk c(width, offset, dtype, static_cast<std::int32_t>(width));
  c.common_max.random(2, 6.0, 7.0);
  const auto run = [&](auto form, auto stats, auto rescale, auto loss, auto backward) {
    stats(CrossEntropyStatsArgs{.logits = form(c.logits),
                                .targets = form(c.targets),
                                .vocab_begin = vocab_begin,
                                .row_max = form(c.row_max),
                                .row_sum = form(c.row_sum),
                                .target_logit = form(c.target_logit)});
    rescale(CrossEntropyRescaleArgs{
        .common_max = form(c.common_max), .row_max = form(c.row_max), .row_sum = form(c.row_sum)});
    loss(CrossEntropyLossArgs{.row_max = form(c.row_max),
                              .row_sum = form(c.row_sum),
                              .target_logit = form(c.target_logit),
                              .target_weights = c.weights.view(),
                              .lse = form(c.lse),
                              .losses = form(c.losses)});
    backward(CrossEntropyBackwardArgs{.logits = form(c.logits),
                                      .targets = form(c.targets),
                                      .target_weights = c.weights.view(),
                                      .lse = form(c.lse),
                                      .vocab_begin = vocab_begin,
                                      .scalars = &c.scalars});
  };
  run(reference_form, reference::cross_entropy_stats<double>, reference::cross_entropy_rescale<double>,
      reference::cross_entropy_loss<double>, reference::cross_entropy_backward<double>);
  run(
      kernel_form, [](const auto& args) { cuda::cross_entropy_stats(args, nullptr); },
      [](const auto& args) { cuda::cross_entropy_rescale(args, nullptr); },
      [](const auto& args) { cuda::cross_entropy_loss(args, nullptr); },
      [](const auto& args) { cuda::cross_entropy_backward(args, nullptr); });
  CHECK(statistics_error(c) <= kFloat32Tolerance);
  CHECK(c.logits.error() <= tolerance(dtype));
}

void at_once(std::int64_t width, std::int64_t offset, DType dtype) {
  INFO(width << " columns, offset " << offset << ", " << dtype_name(dtype));
  Chunk c(width, offset, dtype, static_cast<std::int32_t>(width));
  const auto args = [&](const TensorView& logits, const TensorView& losses, LogitsAfter after) {
    return CrossEntropyArgs{.logits = logits,
                            .targets = c.targets.view(),
                            .target_weights = c.weights.view(),
                            .losses = losses,
                            .logits_after = after,
                            .scalars = after == LogitsAfter::kGradient ? &c.scalars : nullptr};
  };
  reference::cross_entropy<double>(args(c.logits.reference(), c.losses.reference(), LogitsAfter::kKept));
  cuda::cross_entropy(args(c.logits.view(), c.losses.view(), LogitsAfter::kKept), nullptr);
  CHECK(c.losses.error() <= kFloat32Tolerance);
  CHECK(c.logits.error() == 0.0);
  const auto losses_alone = c.losses.bits();
  reference::cross_entropy<double>(args(c.logits.reference(), c.losses.reference(), LogitsAfter::kGradient));
  cuda::cross_entropy(args(c.logits.view(), c.losses.view(), LogitsAfter::kGradient), nullptr);
  CHECK(c.losses.bits() == losses_alone);
  CHECK(c.losses.error() <= kFloat32Tolerance);
  CHECK(c.logits.error() <= tolerance(dtype));
}

std::vector<std::int64_t> widths() {
  return host_runner::kThreadSanitizer ? std::vector<std::int64_t>{40}
                                       : std::vector<std::int64_t>{1, 7, 64, 1003, 4104};
}

}  // namespace

TEST_CASE("cross entropy in steps, on a part of the vocabulary that may miss the target", "[loss]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      for (const std::int64_t width : widths()) {
        steps(width, 0, 0, dtype);
        steps(width, 1, 3, dtype);
      }
    }
  });
}

TEST_CASE("cross entropy at once gives loss and gradient of each row, and the same losses alone", "[loss]") {
  for_each_schedule([] {
    for (const DType dtype : kStorageTypes) {
      for (const std::int64_t width : widths()) {
        at_once(width, 0, dtype);
        at_once(width, 1, dtype);
      }
    }
  });
}

TEST_CASE("logits of minus infinity have no share, and a rank without columns has a sum of zero", "[loss]") {
  for_each_schedule([] {
    Chunk c(9, 0, DType::kFloat32, 9);
    std::vector<double> values(kRows * 9, -std::numeric_limits<double>::infinity());
    for (std::size_t row = 0; row < kRows; ++row) {
      values[row * 9 + row] = 2.0;
    }
    c.logits.fill(values);
    Chunk none(0, 0, DType::kFloat32, 9);
    for (Chunk* chunk : {&c, &none}) {
      cuda::cross_entropy_stats({.logits = chunk->logits.view(),
                                 .targets = chunk->targets.view(),
                                 .row_max = chunk->row_max.view(),
                                 .row_sum = chunk->row_sum.view(),
                                 .target_logit = chunk->target_logit.view()},
                                nullptr);
    }
    for (std::size_t row = 0; row < kRows; ++row) {
      CHECK(c.row_max.get(row) == 2.0);
      CHECK(c.row_sum.get(row) == 1.0);
      CHECK(none.row_max.get(row) == -std::numeric_limits<double>::infinity());
      CHECK(none.row_sum.get(row) == 0.0);
    }
  });
}

TEST_CASE("a logit that is no number makes its row's loss none, wherever it stands", "[loss]") {
  constexpr std::int64_t kWidth = 7;  // most threads have one logit or none
  for_each_schedule([] {
    for (std::int64_t at = 0; at < kWidth; ++at) {
      INFO("column " << at);
      Chunk c(kWidth, 0, DType::kFloat32, kWidth);
      std::vector<double> values(kRows * kWidth, 0.5);
      values[static_cast<std::size_t>(at)] = std::numeric_limits<double>::quiet_NaN();  // of row 0
      c.logits.fill(values);
      cuda::cross_entropy_stats({.logits = c.logits.view(),
                                 .targets = c.targets.view(),
                                 .row_max = c.row_max.view(),
                                 .row_sum = c.row_sum.view(),
                                 .target_logit = c.target_logit.view()},
                                nullptr);
      cuda::cross_entropy({.logits = c.logits.view(),
                           .targets = c.targets.view(),
                           .target_weights = c.weights.view(),
                           .losses = c.losses.view(),
                           .logits_after = LogitsAfter::kKept},
                          nullptr);
      for (std::size_t row = 0; row < kRows; ++row) {
        CHECK(std::isnan(c.row_sum.get(row)) == (row == 0));
        CHECK(std::isnan(c.losses.get(row)) == (row == 0));
      }
    }
  });
}

// The decision on a step's update against the reference, and what the update makes of it.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/loss.h"
#include "kernels/reference/optimizer_step.h"
#include "kernels/reference/update_state.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.95;

void check_equal(const UpdateState& actual, const UpdateState& expected) {
  CHECK(actual.loss_scale == expected.loss_scale);
  CHECK(actual.good_steps == expected.good_steps);
  CHECK(actual.updates == expected.updates);
  CHECK(actual.skipped == expected.skipped);
  CHECK(actual.is_skipped == expected.is_skipped);
  CHECK((actual.grad_norm == expected.grad_norm || std::isnan(expected.grad_norm)));
  CHECK(actual.gradient_factor == Approx(expected.gradient_factor).epsilon(1e-14));
  CHECK(actual.bias_correction1 == Approx(expected.bias_correction1).epsilon(1e-14));
  CHECK(actual.bias_correction2_sqrt == Approx(expected.bias_correction2_sqrt).epsilon(1e-14));
}

PrepareUpdateArgs args_of(double sum_squares, double max_norm, const LossScalePolicy& policy,
                          UpdateState& state) {
  state.sum_squares = sum_squares;
  return {.max_norm = max_norm, .beta1 = kBeta1, .beta2 = kBeta2, .policy = policy, .state = &state};
}

}  // namespace

TEST_CASE("the scale falls when gradients are not finite and grows after many good steps", "[update_state]") {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const LossScalePolicy policy{
      .growth = 2.0, .backoff = 0.5, .growth_interval = 3, .least = 0.5, .most = 8.0};
  // Good, good, bad (the count begins anew), three good (grows), at most 8, down to the least of 0.5.
  const std::vector<double> sums = {1.0, 4.0, inf, 1.0, 0.0, 9.0, 1.0, 1.0, 1.0, 1.0,
                                    1.0, 1.0, nan, nan, nan, inf, inf, inf, 1.0};
  for_each_schedule([&] {
    UpdateState actual{.loss_scale = 4.0};
    UpdateState expected{.loss_scale = 4.0};
    std::vector<double> scales;
    for (const double sum : sums) {
      reference::prepare_update(args_of(sum, 0.6, policy, expected));
      cuda::prepare_update(args_of(sum, 0.6, policy, actual), nullptr);
      check_equal(actual, expected);
      scales.push_back(actual.loss_scale);
    }
    CHECK(scales == std::vector<double>{4, 4, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 4, 2, 1, 0.5, 0.5, 0.5, 0.5});
    CHECK(actual.updates == 12);
    CHECK(actual.skipped == 7);
  });
}

TEST_CASE("more good steps than an interval that was made shorter let the scale grow", "[update_state]") {
  const LossScalePolicy policy{.growth = 2.0, .backoff = 0.5, .growth_interval = 3};
  for_each_schedule([&] {
    UpdateState actual{.loss_scale = 4.0, .good_steps = 10};
    UpdateState expected = actual;
    reference::prepare_update(args_of(1.0, 1.0, policy, expected));
    cuda::prepare_update(args_of(1.0, 1.0, policy, actual), nullptr);
    check_equal(actual, expected);
    CHECK(actual.loss_scale == 8.0);
    CHECK(actual.good_steps == 0);
  });
}

TEST_CASE("the update divides by the scale, clips the true norm, and leaves a skipped step alone",
          "[update_state]") {
  for_each_schedule([] {
    constexpr std::int64_t kCount = 37;
    for (const bool is_skipped : {false, true}) {
      INFO("skipped " << is_skipped);
      TestTensor param(DType::kFloat16, {kCount});
      TestTensor grad(DType::kFloat16, {kCount});
      TestTensor m(DType::kFloat32, {kCount});
      TestTensor v(DType::kFloat32, {kCount});
      TestTensor master(DType::kFloat32, {kCount});
      master.random(1);
      param.fill(master.values());
      grad.random(2, -500.0, 500.0);
      m.random(3, -0.1, 0.1);
      v.random(4, 0.0, 0.1);
      if (is_skipped) {
        std::vector<double> values = grad.values();
        values[17] = std::numeric_limits<double>::infinity();
        grad.fill(values);
      }
      double sum = 0.0;
      TestWorkspace workspace(cuda::sum_workspace_bytes(grad.view()));
      cuda::sum_squares({grad.view(), TensorView(&sum, DType::kFloat64, {1})}, workspace.get(), nullptr);
      UpdateState state{.loss_scale = 1024.0};
      cuda::prepare_update(args_of(sum, 0.25, {}, state), nullptr);

      const std::vector<unsigned char> before[] = {param.bits(), m.bits(), v.bits(), master.bits()};
      const StepScalars scalars{.lr = 0.01};
      const auto args = [&](auto form, TestTensor& value, const UpdateState& update) {
        return AdamwArgs{.param = form(value),
                         .grad = form(grad),
                         .m = form(m),
                         .v = form(v),
                         .weight_decay = 0.1,
                         .beta1 = kBeta1,
                         .beta2 = kBeta2,
                         .eps = 1e-8,
                         .scalars = &scalars,
                         .state = &update};
      };
      if (!is_skipped) {
        const double norm = std::sqrt(sum) / 1024.0;
        CHECK(norm > 0.25);
        const UpdateState first{.gradient_factor = 0.25 / norm / 1024.0,
                                .bias_correction1 = 1.0 - kBeta1,
                                .bias_correction2_sqrt = std::sqrt(1.0 - kBeta2)};
        reference::adamw<double>(args(reference_form, master, first));
      }
      AdamwArgs update = args(kernel_form, param, state);
      update.master = master.view();
      cuda::adamw(update, nullptr);
      if (is_skipped) {
        const std::vector<unsigned char> after[] = {param.bits(), m.bits(), v.bits(), master.bits()};
        CHECK(std::equal(std::begin(before), std::end(before), std::begin(after)));
      } else {
        CHECK(master.error() <= kFloat32Tolerance);
        CHECK(m.error() <= kFloat32Tolerance);
        CHECK(v.error() <= kFloat32Tolerance);
      }
    }
  });
}

TEST_CASE("training in float16 finds a scale by itself and loses nothing but the steps that overflow",
          "[update_state]") {
  host_runner::set_options({});
  // Minimises Σ (x − target)² / 2 with gradients that are stored in float16 after scaling: at first they
  // overflow, without a scale the small ones would be zeros (below 3e-8).
  constexpr std::size_t kCount = 4;
  const std::vector<double> targets = {1.0, -0.5, 0.25, 1.0 + 1e-8};
  TestTensor param(DType::kFloat16, {kCount});
  TestTensor master(DType::kFloat32, {kCount});
  TestTensor grad(DType::kFloat16, {kCount});
  TestTensor m(DType::kFloat32, {kCount});
  TestTensor v(DType::kFloat32, {kCount});
  master.fill({0.0, 0.0, 0.0, 1.0});
  UpdateState state{.loss_scale = 16777216.0};
  const LossScalePolicy policy{.growth = 2.0, .backoff = 0.5, .growth_interval = 50};
  int overflows = 0;
  double smallest_seen = 1.0;
  for (int step = 0; step < 300; ++step) {
    std::vector<double> scaled(kCount);
    bool overflow = false;
    for (std::size_t i = 0; i < kCount; ++i) {
      scaled[i] = (master.get(i) - targets[i]) * state.loss_scale;
      overflow = overflow || std::abs(scaled[i]) >= 65520.0;
    }
    grad.fill(scaled);
    smallest_seen = std::min(smallest_seen, std::abs(grad.get(3)) / state.loss_scale);
    double sum = 0.0;
    TestWorkspace workspace(cuda::sum_workspace_bytes(grad.view()));
    cuda::sum_squares({grad.view(), TensorView(&sum, DType::kFloat64, {1})}, workspace.get(), nullptr);
    cuda::prepare_update(args_of(sum, std::numeric_limits<double>::infinity(), policy, state), nullptr);
    overflows += overflow ? 1 : 0;
    CHECK((state.is_skipped == 1) == overflow);
    const StepScalars scalars{.lr = 0.02};
    cuda::adamw({.param = param.view(),
                 .grad = grad.view(),
                 .m = m.view(),
                 .v = v.view(),
                 .master = master.view(),
                 .beta1 = kBeta1,
                 .beta2 = kBeta2,
                 .eps = 1e-12,
                 .scalars = &scalars,
                 .state = &state},
                nullptr);
  }
  CHECK(overflows >= 8);  // from 2^24 to below 65504
  CHECK(state.skipped == overflows);
  CHECK(state.updates == 300 - overflows);
  CHECK(state.loss_scale > 65536.0);  // grown again as the gradients shrank
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(master.get(i) == Approx(targets[i]).margin(1e-2));
  }
  CHECK(smallest_seen < 3e-8);
  CHECK(smallest_seen > 0.0);
}

TEST_CASE("the gradient of the loss is scaled, and the loss is not", "[update_state]") {
  for_each_schedule([] {
    constexpr std::int64_t kRows = 3;
    constexpr std::int64_t kWidth = 40;
    const StepScalars plain{.inv_valid_tokens = 1.0 / 3000.0};
    const StepScalars scaled{.inv_valid_tokens = 1.0 / 3000.0, .loss_scale = 4096.0};
    TestTensor logits(DType::kFloat16, {kRows, kWidth});
    TestTensor steps(DType::kFloat16, {kRows, kWidth});
    TestTensor targets(DType::kInt32, {kRows});
    TestTensor weights(DType::kFloat32, {kRows});
    TestTensor losses(DType::kFloat32, {kRows});
    TestTensor unscaled(DType::kFloat32, {kRows});
    logits.random(1, -6.0, 6.0);
    steps.random(1, -6.0, 6.0);
    targets.ints({0, 39, 7});
    weights.fill({1.0, 0.5, 1.0});
    TestTensor again(DType::kFloat16, {kRows, kWidth});
    again.random(1, -6.0, 6.0);
    std::vector<double> lse(kRows);
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t column = 0; column < kWidth; ++column) {
        lse[row] += std::exp(logits.get(row * kWidth + column));
      }
      lse[row] = std::log(lse[row]);
    }
    TestTensor row_lse(DType::kFloat32, {kRows});
    row_lse.fill(lse);
    cuda::cross_entropy({.logits = again.view(),
                         .targets = targets.view(),
                         .target_weights = weights.view(),
                         .losses = unscaled.view(),
                         .scalars = &plain},
                        nullptr);
    cuda::cross_entropy({.logits = logits.view(),
                         .targets = targets.view(),
                         .target_weights = weights.view(),
                         .losses = losses.view(),
                         .scalars = &scaled},
                        nullptr);
    CHECK(losses.bits() == unscaled.bits());
    const auto gradient = [&](const TensorView& of) {
      reference::cross_entropy_backward<double>({.logits = of,
                                                 .targets = targets.view(),
                                                 .target_weights = weights.view(),
                                                 .lse = TensorView(lse.data(), DType::kFloat64, {kRows}),
                                                 .scalars = &scaled});
    };
    gradient(logits.reference());
    CHECK(logits.error() <= kFloat16Tolerance);
    cuda::cross_entropy_backward({.logits = steps.view(),
                                  .targets = targets.view(),
                                  .target_weights = weights.view(),
                                  .lse = row_lse.view(),
                                  .scalars = &scaled},
                                 nullptr);
    gradient(steps.reference());
    CHECK(steps.error() <= kFloat16Tolerance);
  });
}

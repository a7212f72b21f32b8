// AdamW and the sums of a step against the reference in double.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "host_runner/schedules.h"
#include "host_runner/tensors.h"
#include "kernels/reference/optimizer_step.h"

using namespace caravan;
using namespace caravan::test;

namespace {

const StepScalars kScalars{.lr = 0.01};
const UpdateState kUpdate{
    .gradient_factor = 0.5, .bias_correction1 = 0.271, .bias_correction2_sqrt = 0.0547, .updates = 3};

struct State {
  TestTensor param, grad, m, v, master;

  State(std::int64_t count, std::int64_t offset, DType dtype, DType gradient)
      : param(dtype, {count}, offset),
        grad(gradient, {count}, offset),
        m(DType::kFloat32, {count}, offset),
        v(DType::kFloat32, {count}, offset),
        master(DType::kFloat32, {count}, offset) {
    param.random(1);
    grad.random(2);
    m.random(3, -0.1, 0.1);
    v.random(4, 0.0, 0.1);
    master.random(5);
  }
  template <class Form>
  AdamwArgs args(const Form& form, TestTensor& value) {
    return {.param = form(value),
            .grad = form(grad),
            .m = form(m),
            .v = form(v),
            .weight_decay = 0.1,
            .beta1 = 0.9,
            .beta2 = 0.95,
            .eps = 1e-8,
            .scalars = &kScalars,
            .state = &kUpdate};
  }
};

}  // namespace

TEST_CASE("adamw updates weights, or their master copy of which they become the rounding", "[optimizer]") {
  for_each_schedule([] {
    for (const auto& [dtype, gradient] : kGradientTypes) {
      for (const std::int64_t count : {1, 9, 1027}) {
        for (const std::int64_t offset : {0, 1}) {
          INFO(count << " elements, offset " << offset << ", " << dtype_name(dtype) << ", gradients "
                     << dtype_name(gradient));
          State plain(count, offset, dtype, gradient);
          reference::adamw<double>(plain.args(reference_form, plain.param));
          cuda::adamw(plain.args(kernel_form, plain.param), nullptr);
          CHECK(plain.param.error() <= tolerance(dtype));
          CHECK(plain.m.error() <= kFloat32Tolerance);
          CHECK(plain.v.error() <= kFloat32Tolerance);

          State exact(count, offset, dtype, gradient);
          reference::adamw<double>(exact.args(reference_form, exact.master));
          AdamwArgs with_master = exact.args(kernel_form, exact.param);
          with_master.master = exact.master.view();
          cuda::adamw(with_master, nullptr);
          CHECK(exact.master.error() <= kFloat32Tolerance);
          for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            const auto master = static_cast<float>(exact.master.get(i));
            CHECK(exact.param.get(i) == rounded(dtype, master));
          }
        }
      }
    }
  });
}

TEST_CASE("stochastic rounding takes the bits of the counter generator, whatever the division",
          "[optimizer]") {
  constexpr std::int64_t kRows = 4;
  constexpr std::int64_t kColumns = 10;
  constexpr std::int64_t kCount = kRows * kColumns;
  const StochasticRounding rounding{
      .is_on = true, .global_cols = kColumns, .seed = 99, .stream = stream_id("w")};
  const auto rounded_args = [&](State& state) {
    AdamwArgs args = state.args(kernel_form, state.param);
    args.rounding = rounding;
    args.rounding.global_cols = kCount;
    return args;
  };
  for_each_schedule([&] {
    State whole(kCount, 0, DType::kBFloat16, DType::kFloat32);
    const State before(kCount, 0, DType::kBFloat16, DType::kFloat32);
    State divided(kCount, 0, DType::kBFloat16, DType::kFloat32);
    reference::adamw<double>(whole.args(reference_form, whole.param));
    cuda::adamw(rounded_args(whole), nullptr);
    const AdamwArgs all = rounded_args(divided);
    // Cut at no multiple of a pack or of a block of the generator.
    for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 13}, {13, kCount}}) {
      AdamwArgs part = all;
      part.param = all.param.rows(begin, end);
      part.grad = all.grad.rows(begin, end);
      part.m = all.m.rows(begin, end);
      part.v = all.v.rows(begin, end);
      part.rounding.col_begin = begin;
      cuda::adamw(part, nullptr);
    }
    CHECK(divided.param.bits() == whole.param.bits());
    // As a matrix, cut by columns: each rank's are contiguous.
    for (const auto& columns : {std::pair<std::int64_t, std::int64_t>{0, 4}, {4, kColumns}}) {
      const std::int64_t begin = columns.first;
      const std::int64_t width = columns.second - begin;
      State part(kRows * width, 0, DType::kBFloat16, DType::kFloat32);
      const auto take = [&](TestTensor& to, const TestTensor& from) {
        std::vector<double> values;
        for (std::int64_t i = 0; i < kRows * width; ++i) {
          values.push_back(from.get(static_cast<std::size_t>(i / width * kColumns + begin + i % width)));
        }
        to.fill(values);
      };
      take(part.param, before.param);
      take(part.grad, before.grad);
      take(part.m, before.m);
      take(part.v, before.v);
      AdamwArgs args = part.args(kernel_form, part.param);
      args.param = args.param.reshape({kRows, width});
      args.rounding = rounding;
      args.rounding.col_begin = begin;
      cuda::adamw(args, nullptr);
      for (std::int64_t i = 0; i < kRows * width; ++i) {
        CHECK(part.param.get(static_cast<std::size_t>(i)) ==
              whole.param.get(static_cast<std::size_t>(i / width * kColumns + begin + i % width)));
      }
    }
    // Core's generator, and the float32 value that the kernel rounds, computed alike.
    int up = 0;
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::uint64_t stream = rounding.stream + 3;
      const auto block = philox4x32({static_cast<std::uint32_t>(i / 8), 0, static_cast<std::uint32_t>(stream),
                                     static_cast<std::uint32_t>(stream >> 32U)},
                                    {99, 0});
      const std::uint32_t bits = block[i % 8 / 2] >> (i % 2 * 16) & 0xffffU;
      State one(kCount, 0, DType::kFloat32, DType::kFloat32);
      std::vector<double> start(kCount);
      for (std::size_t j = 0; j < kCount; ++j) {
        start[j] = before.param.get(j);
      }
      one.param.fill(start);
      cuda::adamw(one.args(kernel_form, one.param), nullptr);
      const auto exact = static_cast<float>(one.param.get(i));
      const std::uint32_t sum = __float_as_uint(exact) + bits;
      CHECK(whole.param.get(i) == static_cast<double>(__uint_as_float(sum & 0xffff0000U)));
      up += (sum >> 16U) != (__float_as_uint(exact) >> 16U) ? 1 : 0;
    }
    CHECK(up > 5);
    CHECK(up < 35);
  });
}

TEST_CASE("stochastic rounding is right on average, and leaves infinities alone", "[optimizer]") {
  host_runner::set_options({});
  constexpr std::int64_t kCount = 4096;
  State s(kCount, 0, DType::kBFloat16, DType::kFloat32);
  const std::vector<double> zeros(kCount, 0.0);
  s.param.fill(std::vector<double>(kCount, 1.0));
  s.grad.fill(zeros);
  s.m.fill(zeros);
  s.v.fill(zeros);
  AdamwArgs args = s.args(kernel_form, s.param);
  args.weight_decay = 0.1;  // 1 becomes 0.999, a quarter of the way to the next bfloat16 below, 0.99609375
  args.rounding = {.is_on = true, .global_cols = kCount, .seed = 5};
  cuda::adamw(args, nullptr);
  double mean = 0.0;
  for (std::size_t i = 0; i < kCount; ++i) {
    CHECK((s.param.get(i) == 1.0 || s.param.get(i) == 0.99609375));
    mean += s.param.get(i) / kCount;
  }
  // Standard deviation of the mean: 0.0039 · sqrt(0.19 / 4096) = 2.7e-5; four of them.
  CHECK(std::abs(mean - 0.999) < 1.1e-4);

  // A step beyond the largest float: infinity, whatever the random bits.
  StepScalars huge = kScalars;
  huge.lr = 1e38;
  s.m.fill(std::vector<double>(kCount, -1000.0));
  args.weight_decay = 0.0;
  args.scalars = &huge;
  cuda::adamw(args, nullptr);
  for (std::size_t i = 0; i < kCount; ++i) {
    CHECK(s.param.get(i) == std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("sums add to their result in one order", "[optimizer]") {
  std::vector<double> first;
  const std::vector<std::int64_t> counts = host_runner::kThreadSanitizer
                                               ? std::vector<std::int64_t>{700}
                                               : std::vector<std::int64_t>{1, 7, 4096, 9001};
  for_each_schedule([&] {
    std::vector<double> results;
    for (const DType dtype : kStorageTypes) {
      for (const std::int64_t count : counts) {
        for (const std::int64_t offset : {0, 1}) {
          INFO(count << " elements, offset " << offset << ", " << dtype_name(dtype));
          TestTensor x(dtype, {count}, offset);
          x.random(1);
          const auto check = [&](const auto& expect, const auto& compute) {
            double expected = 2.0;
            double result = 2.0;
            expect(TensorView(&expected, DType::kFloat64, {1}));
            TestWorkspace workspace(cuda::sum_workspace_bytes(x.view()));
            compute(TensorView(&result, DType::kFloat64, {1}), workspace.get());
            // The reference adds up to 9001 terms one after the other, each sum rounded to 1.1e-16.
            CHECK(result == Approx(expected).epsilon(1e-12).margin(1e-12));
            results.push_back(result);
          };
          check(
              [&](const TensorView& sum) {
                reference::sum_squares<double>({x.reference(), sum});
              },
              [&](const TensorView& sum, const cuda::Workspace& workspace) {
                cuda::sum_squares({x.view(), sum}, workspace, nullptr);
              });
          if (dtype == DType::kFloat32) {
            check(
                [&](const TensorView& sum) {
                  reference::sum<double>({x.reference(), sum});
                },
                [&](const TensorView& sum, const cuda::Workspace& workspace) {
                  cuda::sum({x.view(), sum}, workspace, nullptr);
                });
          }
        }
      }
    }
    if (first.empty()) {
      first = results;
    }
    CHECK(results == first);
  });
}

// The CPU backend against the reference in float64, for every registered op, instruction set and alignment.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "caravan/core/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/op_registry.h"
#include "kernels/reference/reference_backend.h"
#include "support/op_case_data.h"

using namespace caravan;
using namespace caravan::reference;
using namespace caravan::test;

namespace {

// Error of a tensor: largest |actual − expected| over largest |expected|. Inputs are equal in all dtypes, so
// what is left is rounding. float32: sums of up to 1000 terms in vectors and exp of scores up to 40, where
// one unit in the last place of the score is 40 · 6e-8 = 2.4e-6 of the result. (Largest seen: 1.8e-6.)
constexpr double kFloat32Tolerance = 4e-6;
// float64: the reference itself adds up to 1e5 terms one after the other. (Largest seen: 7e-14, in that sum;
// below 1e-14 elsewhere.)
constexpr double kFloat64Tolerance = 2e-13;

/// Infinite when infinities or NaN are not in the same places.
double scaled_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  double worst = 0.0;
  double scale = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::isfinite(expected[i]) && std::isfinite(actual[i])) {
      worst = std::max(worst, std::abs(actual[i] - expected[i]));
      scale = std::max(scale, std::abs(expected[i]));
    } else if (actual[i] != expected[i]) {
      return std::numeric_limits<double>::infinity();
    }
  }
  return scale > 0.0 ? worst / scale : worst;
}

void run(const OpCase& op, Backend& backend, const OpViews& views) {
  op.forward(backend, views);
  if (op.backward) {
    op.backward(backend, views);
  }
}

void compare(const OpCase& op, Backend& backend, DType dtype, std::int64_t offset) {
  ReferenceBackend reference;
  const OpCaseData expected(op, DType::kFloat64);
  const OpCaseData actual(op, dtype, offset);
  run(op, reference, expected.views());
  run(op, backend, actual.views());
  const double tolerance = dtype == DType::kFloat32 ? kFloat32Tolerance : kFloat64Tolerance;
  INFO(backend.name() << ", " << dtype_name(dtype) << ", offset " << offset << ": " << op.op << ", "
                      << op.label);
  for (std::size_t k = 0; k < op.outputs.size(); ++k) {
    INFO(op.outputs[k].name);
    CHECK(scaled_error(values_of(actual.views().outputs[k]), values_of(expected.views().outputs[k])) <=
          tolerance);
  }
  for (std::size_t k = 0; k < op.inputs.size(); ++k) {
    if (op.backward && op.inputs[k].gradient != InputGradient::kNone) {
      INFO("d" << op.inputs[k].name);
      CHECK(scaled_error(values_of(actual.views().dinputs[k]), values_of(expected.views().dinputs[k])) <=
            tolerance);
    }
  }
}

bool is_product(const OpCase& op) {
  return op.op == "linear" || op.op == "added product";
}

std::vector<std::vector<double>> results(const OpCase& op, Backend& backend, DType dtype) {
  const OpCaseData data(op, dtype);
  run(op, backend, data.views());
  std::vector<std::vector<double>> all;
  for (const TensorView& output : data.views().outputs) {
    all.push_back(values_of(output));
  }
  for (const TensorView& gradient : data.views().dinputs) {
    all.push_back(gradient.defined() && op.backward ? values_of(gradient) : std::vector<double>());
  }
  return all;
}

bool same_bits(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * 8) == 0);
  });
}

/// Restores one thread at the end of a test case.
struct ThreadGuard {
  ~ThreadGuard() { set_cpu_threads(1); }
};

}  // namespace

TEST_CASE("every op on every instruction set equals the reference", "[ops][cpu][parity]") {
  for (const SimdLevel level : available_simd_levels()) {
    const auto backend = make_cpu_backend(level);
    for (const OpCase& op : op_cases()) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
        compare(op, *backend, dtype, 0);
        compare(op, *backend, dtype, 1);
      }
    }
  }
}

TEST_CASE("results do not depend on the number of threads", "[ops][cpu][threads]") {
  const ThreadGuard guard;
  for (const SimdLevel level : available_simd_levels()) {
    const auto backend = make_cpu_backend(level);
    for (const OpCase& op : op_cases()) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
        if (is_product(op)) {
          continue;  // OpenBLAS promises nothing here
        }
        INFO(backend->name() << ": " << op.op << ", " << op.label);
        set_cpu_threads(1);
        const auto alone = results(op, *backend, dtype);
        for (const int threads : {2, 3}) {
          set_cpu_threads(threads);
          CHECK(same_bits(results(op, *backend, dtype), alone));
        }
      }
    }
  }
}

TEST_CASE("products divided over threads equal the reference", "[ops][cpu][threads]") {
  const ThreadGuard guard;
  const auto backend = make_cpu_backend();
  set_cpu_threads(3);
  for (const OpCase& op : op_cases()) {
    if (is_product(op)) {
      compare(op, *backend, DType::kFloat64, 0);
    }
  }
}

TEST_CASE("a product of one row does not depend on the number of threads", "[ops][cpu][threads]") {
  const ThreadGuard guard;
  constexpr std::int64_t kIn = 301;
  constexpr std::int64_t kOut = 1003;  // several pieces of work, the last one odd
  std::vector<float> x(kIn);
  std::vector<float> weight(kIn * kOut);
  for (std::size_t i = 0; i < weight.size(); ++i) {
    weight[i] = static_cast<float>(std::sin(static_cast<double>(i)));
    x[i % x.size()] = static_cast<float>(std::cos(static_cast<double>(i)));
  }
  Stream stream;
  for (const SimdLevel level : available_simd_levels()) {
    const auto backend = make_cpu_backend(level);
    const auto product = [&](int threads) {
      set_cpu_threads(threads);
      std::vector<float> y(kOut);
      backend->matmul_nt({.a = TensorView(x.data(), DType::kFloat32, {1, kIn}),
                          .b = DenseWeight{TensorView(weight.data(), DType::kFloat32, {kOut, kIn})},
                          .c = TensorView(y.data(), DType::kFloat32, {1, kOut})},
                         stream);
      return y;
    };
    const std::vector<float> alone = product(1);
    double exact = 0.0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      exact += static_cast<double>(x[k]) * static_cast<double>(weight[(kOut - 1) * kIn + k]);
    }
    CHECK(std::abs(static_cast<double>(alone.back()) - exact) <= kFloat32Tolerance * kIn);
    CHECK(product(2) == alone);
    CHECK(product(3) == alone);
  }
}

TEST_CASE("the float32 exponential is exact to 2 units in the last place and keeps NaN",
          "[ops][cpu][activation]") {
  constexpr std::int64_t kCount = 200001;
  constexpr double kUlps = 2.0;
  Stream stream;
  for (const SimdLevel level : available_simd_levels()) {
    const auto backend = make_cpu_backend(level);
    std::vector<float> x(kCount);
    for (std::int64_t i = 0; i < kCount; ++i) {
      x[static_cast<std::size_t>(i)] = static_cast<float>(-87.3 + 176.0 * static_cast<double>(i) / kCount);
    }
    std::vector<float> y = x;
    // exp(x) · 1 through the loss's backward pass with lse = 0 and a target outside the columns
    std::int32_t target = -1;
    float weight = 1.0F;
    float lse = 0.0F;
    const StepScalars scalars;
    backend->cross_entropy_backward(
        {TensorView(y.data(), DType::kFloat32, {1, kCount}), TensorView(&target, DType::kInt32, {1}),
         TensorView(&weight, DType::kFloat32, {1}), TensorView(&lse, DType::kFloat32, {1}), 0, &scalars},
        stream);
    double worst = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]));
      const double unit = std::abs(std::nextafter(static_cast<float>(exact), INFINITY) -
                                   static_cast<double>(static_cast<float>(exact)));
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - exact) / unit);
    }
    CHECK(worst <= kUlps);
    std::vector<float> edge = {-INFINITY, -88.0F, 88.8F, INFINITY, std::nanf(""), -0.0F};
    backend->cross_entropy_backward(
        {TensorView(edge.data(), DType::kFloat32, {1, 6}), TensorView(&target, DType::kInt32, {1}),
         TensorView(&weight, DType::kFloat32, {1}), TensorView(&lse, DType::kFloat32, {1}), 0, &scalars},
        stream);
    CHECK(edge[0] == 0.0F);
    CHECK(edge[1] == 0.0F);
    CHECK(std::isinf(edge[2]));
    CHECK(std::isinf(edge[3]));
    CHECK(std::isnan(edge[4]));
    CHECK(edge[5] == 1.0F);
  }
}

TEST_CASE("ids and positions outside their tables are refused", "[ops][cpu][embedding][rope]") {
  const auto backend = make_cpu_backend();
  Stream stream;
  std::vector<float> table(8, 1.0F);
  std::vector<float> y(4);
  const TensorView weight(table.data(), DType::kFloat32, {4, 2});
  for (std::int32_t id : {-1, 4}) {
    const TensorView ids(&id, DType::kInt32, {1});
    const EmbeddingForwardArgs embedding = {weight, ids, TensorView(y.data(), DType::kFloat32, {1, 2})};
    const TensorView x(y.data(), DType::kFloat32, {1, 4});
    const RopeArgs rotation = {x, ids, weight, weight, 4, RopeDirection::kForward};
    CHECK_THROWS_AS(backend->embedding_forward(embedding, stream), InternalError);
    CHECK_THROWS_AS(backend->rope(rotation, stream), InternalError);
  }
}

TEST_CASE("the part of a table that is elsewhere is not needed, ids outside the whole are refused",
          "[ops][cpu][embedding]") {
  const auto backend = make_cpu_backend();
  Stream stream;
  std::vector<float> table(8, 1.0F);
  std::vector<float> y(2, -1.0F);
  const auto forward = [&](std::int32_t id) {
    backend->embedding_forward(
        {TensorView(table.data(), DType::kFloat32, {4, 2}), TensorView(&id, DType::kInt32, {1}),
         TensorView(y.data(), DType::kFloat32, {1, 2}), 3, 9},
        stream);
    return y;
  };
  CHECK(forward(2) == std::vector<float>{0.0F, 0.0F});
  CHECK(forward(3) == std::vector<float>{1.0F, 1.0F});
  CHECK(forward(8) == std::vector<float>{0.0F, 0.0F});
  CHECK_THROWS_WITH(forward(9), Catch::Contains("token id 9") && Catch::Contains("9 rows"));
  CHECK_THROWS_AS(forward(-1), InternalError);
}

TEST_CASE("keys that are not in the order of their index are refused", "[ops][cpu][attention]") {
  const auto backend = make_cpu_backend();
  Stream stream;
  std::vector<float> values(8, 1.0F);
  std::vector<std::int32_t> key_index = {0, 1, 3, 2};
  std::vector<std::int32_t> query_index = {3, 3};
  std::vector<std::int32_t> document_start = {0, 0};
  const TensorView q(values.data(), DType::kFloat32, {2, 2});
  const TensorView k(values.data(), DType::kFloat32, {4, 2});
  std::vector<float> o(4);
  std::vector<float> lse(2);
  const AttentionForwardArgs args = {.shape = {1, 2, 4, 1, 1, 2, 1.0},
                                     .mask = {TensorView(query_index.data(), DType::kInt32, {2}),
                                              TensorView(key_index.data(), DType::kInt32, {4}),
                                              TensorView(document_start.data(), DType::kInt32, {2})},
                                     .q = q,
                                     .k = k,
                                     .v = k,
                                     .o = TensorView(o.data(), DType::kFloat32, {2, 2}),
                                     .lse = TensorView(lse.data(), DType::kFloat32, {1, 2})};
  CHECK_THROWS_WITH(backend->attention_forward(args, stream), Catch::Contains("not in order"));
}

TEST_CASE("an unknown instruction set in CARAVAN_SIMD is an error that lists the available ones",
          "[cpu][dispatch]") {
  const char* kept = std::getenv("CARAVAN_SIMD");
  const std::string before = kept == nullptr ? "" : kept;
  setenv("CARAVAN_SIMD", "mmx", 1);
  CHECK_THROWS_WITH(make_cpu_backend(), Catch::Contains("mmx") && Catch::Contains("baseline"));
  setenv("CARAVAN_SIMD", "baseline", 1);
  CHECK(make_cpu_backend()->name() == "cpu (OpenBLAS, baseline)");
  setenv("CARAVAN_SIMD", before.c_str(), 1);
}

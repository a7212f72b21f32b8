// Every registered op's backward pass against the complex-step derivative of its forward pass.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>

#include "kernels/reference/op_registry.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/scalar.h"
#include "support/complex_step.h"
#include "support/op_case_data.h"
#include "support/recording_backend.h"

using namespace caravan;
using namespace caravan::reference;
using namespace caravan::test;

namespace {

using Complex = std::complex<double>;

// Both sides are exact up to the rounding of sums of at most some hundred terms.
constexpr double kTolerance = 1e-12;

/// Σ over results of incoming gradient · value: the scalar whose gradient the backward pass computes.
Complex contracted_outputs(const OpCase& op, const OpViews& views) {
  Complex sum{};
  for (std::size_t k = 0; k < op.outputs.size(); ++k) {
    if (op.outputs[k].kind == OutputKind::kResult) {
      const auto values = elements<Complex>(views.outputs[k]);
      const auto gradients = elements<Complex>(views.doutputs[k]);
      for (std::size_t i = 0; i < values.size(); ++i) {
        sum += gradients[i] * values[i];
      }
    }
  }
  return sum;
}

double largest(const std::vector<double>& values) {
  double result = 0.0;
  for (const double value : values) {
    result = std::max(result, std::abs(value));
  }
  return result;
}

/// Largest difference in units of the largest expected value; infinite when something is not finite.
double relative_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  std::vector<double> difference;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference.push_back(std::isfinite(actual[i]) ? actual[i] - expected[i] : INFINITY);
  }
  return largest(difference) / std::max(largest(expected), 1e-300);
}

void check_gradient(const OpCase& op) {
  ReferenceBackend backend;
  const OpCaseData data(op, DType::kComplex128);
  const OpViews& views = data.views();
  std::vector<std::vector<double>> expected;
  for (std::size_t k = 0; k < op.inputs.size(); ++k) {
    expected.emplace_back();
    if (op.inputs[k].gradient != InputGradient::kNone) {
      expected.back() = complex_step_gradient(elements<Complex>(views.inputs[k]), [&] {
        op.forward(backend, views);
        return contracted_outputs(op, views);
      });
      const std::vector<double> before = values_of(views.dinputs[k]);
      for (std::size_t i = 0; i < before.size(); ++i) {
        expected.back()[i] += op.inputs[k].gradient == InputGradient::kAccumulated ? before[i] : 0.0;
      }
    }
  }
  op.forward(backend, views);
  op.backward(backend, views);
  for (std::size_t k = 0; k < op.inputs.size(); ++k) {
    if (op.inputs[k].gradient != InputGradient::kNone) {
      INFO(op.op << ", " << op.label << ": d" << op.inputs[k].name);
      CHECK(relative_error(values_of(views.dinputs[k]), expected[k]) <= kTolerance);
    }
  }
}

std::string read_backend_header() {
  const char* root = std::getenv("CARAVAN_SOURCE_DIR");
  REQUIRE(root != nullptr);
  std::ifstream file(std::string(root) + "/include/caravan/backend/backend.h");
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct CalledMethods {
  std::set<std::string> forward;
  std::set<std::string> backward;
};

CalledMethods methods_called_by_registry() {
  ReferenceBackend reference;
  RecordingBackend forward(reference);
  RecordingBackend backward(reference);
  for (const OpCase& op : op_cases()) {
    const OpCaseData data(op, DType::kFloat64);
    op.forward(forward, data.views());
    if (op.backward) {
      op.backward(backward, data.views());
    }
  }
  return {forward.called(), backward.called()};
}

}  // namespace

TEST_CASE("every op's backward pass equals the complex-step derivative of its forward pass",
          "[ops][backward]") {
  for (const OpCase& op : op_cases()) {
    if (op.backward && op.size == CaseSize::kSmall) {
      check_gradient(op);
    }
  }
}

TEST_CASE("every method of the backend's table is reached by a registered op", "[ops][registry]") {
  CalledMethods called = methods_called_by_registry();
  called.forward.merge(called.backward);
  const std::string header = read_backend_header();
  const std::regex method(R"(virtual void (\w+)\(const \w+Args&)");
  std::set<std::string> declared;
  for (std::sregex_iterator found(header.begin(), header.end(), method), end; found != end; ++found) {
    declared.insert((*found)[1]);
  }
  REQUIRE(declared.size() > 20);
  CHECK(called.forward == declared);
}

TEST_CASE("every forward method's partner is called by a registered backward pass", "[ops][registry]") {
  const CalledMethods called = methods_called_by_registry();
  for (const std::string& name : called.forward) {
    INFO(name);
    CHECK(name.find("_backward") == std::string::npos);
    if (name.ends_with("_forward")) {
      CHECK(called.backward.contains(std::regex_replace(name, std::regex("_forward$"), "_backward")));
    }
  }
}

TEST_CASE("the complex step gives known derivatives and the error measure sees 1e-10", "[ops][backward]") {
  std::vector<Complex> x = {0.3, -0.7};
  const auto gradient =
      complex_step_gradient(x, [&] { return x[0] * x[0] * std::exp(x[1]) / std::sqrt(x[0]); });
  const double root = std::sqrt(0.3);
  const std::vector<double> right = {1.5 * root * std::exp(-0.7), 0.3 * root * std::exp(-0.7)};
  CHECK(relative_error(gradient, right) <= kTolerance);
  CHECK(relative_error(gradient, {right[0] * (1.0 + 1e-10), right[1]}) > kTolerance);
}

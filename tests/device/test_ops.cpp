// TIMEOUT 900
// Every registered op on the device, in each type it stores, against the reference in float64 on the same
// values, as CPU parity does on the CPU.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "device_under_test.h"
#include "kernels/reference/op_registry.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/scalar.h"
#include "support/op_case_data.h"

using namespace caravan;
using namespace caravan::reference;
using namespace caravan::test;

namespace {

// As in tests/parity/test_cpu_ops.cpp; float accumulation one after the other adds to it in products of up to
// 1000 terms, and the device's exp may be off by two units in the last place.
constexpr double kFloat32Tolerance = 8e-6;
// The device stores what an op writes in 16 bits, to 2^-8 relative in bfloat16 and 2^-11 in float16
// (tests/host_runner/tensors.h), and adds in float32; the reference never rounds. Between a case's inputs and
// what is compared at most four roundings come one after the other (divided attention: weights, o of each
// part, the merged o that the backward pass reads, dq), so at most four times that. (Largest seen,
// there: 1.2e-2 and 1.6e-3; elsewhere below half.)
constexpr double kBFloat16Tolerance = 4 * 4e-3;
constexpr double kFloat16Tolerance = 4 * 5e-4;
double tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return kBFloat16Tolerance;
    case DType::kFloat16:
      return kFloat16Tolerance;
    default:
      return kFloat32Tolerance;
  }
}

/// Statistics, losses and tables are float32 whatever the activations are.
DType stored(const std::string& name, DType dtype) {
  static const std::set<std::string> in_float32 = {
      "rstd",         "lse",        "lse_part", "row_max", "row_sum", "losses", "losses beside the gradient",
      "target_logit", "common_max", "cos",      "sin"};
  return in_float32.contains(name) ? DType::kFloat32 : dtype;
}

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

/// The views of a case on a device, filled with the host's values.
class OnDevice {
 public:
  OnDevice(const OpCase& op, const OpViews& host, DType dtype, Backend& backend) : backend_(backend) {
    for (std::size_t k = 0; k < op.inputs.size(); ++k) {
      const OpInput& input = op.inputs[k];
      views_.inputs.push_back(upload(host.inputs[k], stored(input.name, dtype)));
      // A weight's gradient is float32, as the optimizer reads it.
      const bool is_weight = input.gradient == InputGradient::kAccumulated && input.name != "x";
      views_.dinputs.push_back(upload(host.dinputs[k], is_weight ? DType::kFloat32 : dtype));
    }
    for (const TensorView& view : host.constants) {
      views_.constants.push_back(upload(view, view.dtype()));
    }
    for (std::size_t k = 0; k < op.outputs.size(); ++k) {
      const DType of_output = stored(op.outputs[k].name, dtype);
      views_.outputs.push_back(upload(host.outputs[k], of_output));
      views_.doutputs.push_back(upload(host.doutputs[k], of_output));
    }
  }
  const OpViews& views() const { return views_; }
  std::vector<double> values(const TensorView& view) {
    std::vector<double> result(static_cast<std::size_t>(view.numel()));
    if (!result.empty()) {
      Stream stream;
      backend_.copy({view, TensorView(result.data(), DType::kFloat64, view.shape())}, stream);
    }
    return result;
  }

 private:
  TensorView upload(const TensorView& view, DType dtype) {
    if (!view.defined()) {
      return {};
    }
    buffers_.push_back(backend_.allocate(view.numel() * static_cast<std::int64_t>(dtype_bytes(dtype))));
    const TensorView there = buffers_.back().view(0, dtype, view.shape());
    Stream stream;
    backend_.copy({view, there}, stream);
    return there;
  }
  Backend& backend_;
  std::vector<Buffer> buffers_;
  OpViews views_;
};

/// What the device was given, as the reference takes it.
void copy_values(OnDevice& device, const std::vector<TensorView>& from, const std::vector<TensorView>& to) {
  for (std::size_t k = 0; k < from.size(); ++k) {
    if (from[k].defined()) {
      std::ranges::copy(device.values(from[k]), elements<double>(to[k]).begin());
    }
  }
}

/// AdamW keeps bfloat16 weights beside masters, or rounds them by chance, and sums are over losses: both have
/// tests of their own (tests/host_runner/test_optimizer.cpp).
bool stores_16_bits(const OpCase& op) {
  return op.op != "adamw" && op.op != "sum";
}

void compare(const OpCase& op, DType dtype, Backend& device) {
  INFO(op.op << ", " << op.label << ", " << dtype_name(dtype));
  ReferenceBackend reference;
  const OpCaseData expected(op, DType::kFloat64);
  const OpCaseData start(op, DType::kFloat32);
  OnDevice actual(op, start.views(), dtype, device);
  copy_values(actual, actual.views().inputs, expected.views().inputs);
  copy_values(actual, actual.views().doutputs, expected.views().doutputs);
  copy_values(actual, actual.views().dinputs, expected.views().dinputs);
  const auto run = [&](Backend& backend, const OpViews& views) {
    op.forward(backend, views);
    if (op.backward) {
      op.backward(backend, views);
    }
  };
  run(reference, expected.views());
  run(device, actual.views());
  for (std::size_t k = 0; k < op.outputs.size(); ++k) {
    INFO(op.outputs[k].name);
    CHECK(scaled_error(actual.values(actual.views().outputs[k]), values_of(expected.views().outputs[k])) <=
          tolerance(dtype));
  }
  for (std::size_t k = 0; k < op.inputs.size(); ++k) {
    if (op.backward && op.inputs[k].gradient != InputGradient::kNone) {
      INFO("d" << op.inputs[k].name);
      CHECK(scaled_error(actual.values(actual.views().dinputs[k]), values_of(expected.views().dinputs[k])) <=
            tolerance(dtype));
    }
  }
}

}  // namespace

// A case each: racecheck takes a minute for the first.

TEST_CASE("every op of the table computes on the device what the reference does", "[ops][float32]") {
  if (!device_or_skip()) {
    return;
  }
  for (const OpCase& op : op_cases()) {
    compare(op, DType::kFloat32, *device_under_test().backend);
  }
}

TEST_CASE("every op that stores 16 bits computes what the reference does", "[ops][16bits]") {
  if (!device_or_skip()) {
    return;
  }
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (const OpCase& op : op_cases()) {
      if (stores_16_bits(op)) {
        compare(op, dtype, *device_under_test().backend);
      }
    }
  }
}

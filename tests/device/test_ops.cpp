// Every registered op on the device against the reference in float64, as CPU parity does on the CPU.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "device_under_test.h"
#include "kernels/reference/op_registry.h"
#include "kernels/reference/reference_backend.h"
#include "support/op_case_data.h"

using namespace caravan;
using namespace caravan::reference;
using namespace caravan::test;

namespace {

// As in tests/parity/test_cpu_ops.cpp; float accumulation one after the other adds to it in products of up to
// 1000 terms, and the device's exp may be off by two units in the last place.
constexpr double kTolerance = 8e-6;

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
  OnDevice(const OpViews& host, Backend& backend) : backend_(backend) {
    for (const auto list :
         {&OpViews::inputs, &OpViews::constants, &OpViews::outputs, &OpViews::doutputs, &OpViews::dinputs}) {
      for (const TensorView& view : host.*list) {
        (views_.*list).push_back(view.defined() ? upload(view) : TensorView());
      }
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
  TensorView upload(const TensorView& view) {
    buffers_.push_back(backend_.allocate(view.bytes()));
    const TensorView there = buffers_.back().view(0, view.dtype(), view.shape());
    Stream stream;
    backend_.copy({view, there}, stream);
    return there;
  }
  Backend& backend_;
  std::vector<Buffer> buffers_;
  OpViews views_;
};

}  // namespace

TEST_CASE("every op of the table computes on the device what the reference does", "[ops]") {
  if (!device_or_skip()) {
    return;
  }
  Backend& device = *device_under_test().backend;
  for (const OpCase& op : op_cases()) {
    INFO(op.op << ", " << op.label);
    ReferenceBackend reference;
    const OpCaseData expected(op, DType::kFloat64);
    const OpCaseData start(op, DType::kFloat32);
    OnDevice actual(start.views(), device);
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
            kTolerance);
    }
    for (std::size_t k = 0; k < op.inputs.size(); ++k) {
      if (op.backward && op.inputs[k].gradient != InputGradient::kNone) {
        INFO("d" << op.inputs[k].name);
        CHECK(scaled_error(actual.values(actual.views().dinputs[k]),
                           values_of(expected.views().dinputs[k])) <= kTolerance);
      }
    }
  }
}

#include "support/op_case_data.h"

#include <cstring>
#include <limits>

#include "caravan/core/counter_rng.h"
#include "kernels/reference/scalar.h"

namespace caravan::test {

OpCaseData::OpCaseData(const reference::OpCase& op, DType dtype, std::int64_t offset)
    : origin_(op.op + " " + op.label), offset_(offset) {
  constexpr double kUnwritten = std::numeric_limits<double>::quiet_NaN();
  for (const reference::OpInput& input : op.inputs) {
    views_.inputs.push_back(tensor(dtype, input.shape));
    fill(views_.inputs.back(), input.name, input.low, input.high);
    TensorView gradient;
    if (input.gradient != reference::InputGradient::kNone) {
      gradient = tensor(dtype, input.shape);
      set_all(gradient, kUnwritten);
      if (input.gradient == reference::InputGradient::kAccumulated) {
        fill(gradient, "d" + input.name, -1.0, 1.0);
      }
    }
    views_.dinputs.push_back(gradient);
  }
  for (const reference::OpConstant& constant : op.constants) {
    std::visit(
        [&]<class T>(const std::vector<T>& values) {
          const TensorView view = tensor(DTypeOf<T>::kValue, Shape{static_cast<std::int64_t>(values.size())});
          if (!values.empty()) {
            std::memcpy(view.raw(), values.data(), values.size() * sizeof(T));
          }
          views_.constants.push_back(view);
        },
        constant);
  }
  for (const reference::OpOutput& output : op.outputs) {
    views_.outputs.push_back(tensor(dtype, output.shape));
    set_all(views_.outputs.back(), kUnwritten);
    TensorView gradient;
    if (output.kind == reference::OutputKind::kResult) {
      gradient = tensor(dtype, output.shape);
      fill(gradient, "gradient of " + output.name, -1.0, 1.0);
      if (output.fixed_gradient) {
        set_all(gradient, *output.fixed_gradient);
      }
    }
    views_.doutputs.push_back(gradient);
  }
}

TensorView OpCaseData::tensor(DType dtype, const Shape& shape) {
  const std::int64_t count = shape.numel();
  const auto element = static_cast<std::int64_t>(dtype_bytes(dtype));
  buffers_.push_back(allocate_host((count + offset_ + 1) * element));
  return buffers_.back().view(offset_ * element, dtype, shape);
}

void OpCaseData::fill(const TensorView& view, const std::string& name, double low, double high) {
  const CounterRng rng(42, stream_id(origin_ + name));
  reference::with_scalar(view.dtype(), [&]<class T>() {
    std::uint64_t index = 0;
    for (T& element : reference::elements<T>(view)) {
      const auto value = static_cast<float>(low + (high - low) * rng.uniform(index++));
      element = static_cast<T>(static_cast<double>(value));
    }
  });
}

std::vector<double> values_of(const TensorView& view) {
  std::vector<double> values;
  reference::with_scalar(view.dtype(), [&]<class T>() {
    for (const T& element : reference::elements<T>(view)) {
      values.push_back(reference::real_part(element));
    }
  });
  return values;
}

void set_all(const TensorView& view, double value) {
  reference::with_scalar(view.dtype(), [&]<class T>() {
    for (T& element : reference::elements<T>(view)) {
      element = static_cast<T>(value);
    }
  });
}

}  // namespace caravan::test

// Every op with its backward pass and the shapes it is tried on. The gradient tests differentiate each case
// by complex step; the parity tests run each case on a fast backend and on the reference; neither keeps a
// list of its own. An op that is not registered here fails tests/gradient/test_ops.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "caravan/backend/backend.h"

namespace caravan::reference {

/// What the backward pass does to an input's gradient.
enum class InputGradient : std::uint8_t { kWritten, kAccumulated, kNone };

struct OpInput {
  std::string name{};
  Shape shape{};
  InputGradient gradient = InputGradient::kWritten;
  double low = -1.0;  // values are drawn uniformly from [low, high)
  double high = 1.0;
};

/// A result has an incoming gradient; a saved value is only handed to the backward pass.
enum class OutputKind : std::uint8_t { kResult, kSaved };

struct OpOutput {
  std::string name{};
  Shape shape{};
  OutputKind kind = OutputKind::kResult;
  std::optional<double> fixed_gradient{};  // where the op implies it (a loss); drawn at random else
};

/// Index arrays and target weights, 1-D.
using OpConstant = std::variant<std::vector<std::int32_t>, std::vector<float>>;

/// Views of one run, in the order of the case's lists. `doutputs` is undefined where an output is saved,
/// `dinputs` where an input has no gradient.
struct OpViews {
  std::vector<TensorView> inputs{};
  std::vector<TensorView> constants{};
  std::vector<TensorView> outputs{};
  std::vector<TensorView> doutputs{};
  std::vector<TensorView> dinputs{};
};

/// Small cases suit one forward pass per input element; large ones cross every blocking of a fast backend.
enum class CaseSize : std::uint8_t { kSmall, kLarge };

struct OpCase {
  std::string op{};
  std::string label{};
  CaseSize size = CaseSize::kSmall;
  std::vector<OpInput> inputs{};
  std::vector<OpConstant> constants{};
  std::vector<OpOutput> outputs{};
  /// Fills outputs from inputs; leaves inputs as they are.
  std::function<void(Backend&, const OpViews&)> forward{};
  /// Fills dinputs from everything else; empty for ops without a derivative (optimiser, random values).
  std::function<void(Backend&, const OpViews&)> backward{};
};

/// All ops, in the order of the backend's table.
std::vector<OpCase> op_cases();

}  // namespace caravan::reference

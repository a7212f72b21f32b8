// How the second operand of a product is stored. Quantised forms join the variant; matmul is the only reader.
#pragma once

#include <variant>

#include "caravan/core/tensor_view.h"

namespace caravan {

/// Plain elements, [out, in] row-major.
struct DenseWeight {
  TensorView values;
};

using WeightView = std::variant<DenseWeight>;

/// [out, in]
inline const Shape& weight_shape(const WeightView& weight) {
  return std::visit([](const auto& form) -> const Shape& { return form.values.shape(); }, weight);
}

}  // namespace caravan

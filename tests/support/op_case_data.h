// Memory and values for one run of a registered op: the same values in every dtype and at every alignment.
#pragma once

#include <complex>
#include <string>
#include <vector>

#include "kernels/reference/op_registry.h"

namespace caravan::test {

/// Inputs and incoming gradients are drawn from a fixed seed and representable in float32. Outputs and
/// written gradients start as NaN, so that an element nobody writes is seen; accumulated gradients start at
/// random values. `offset` shifts every tensor by that many elements from its 64-byte boundary.
class OpCaseData {
 public:
  OpCaseData(const reference::OpCase& op, DType dtype, std::int64_t offset = 0);

  const reference::OpViews& views() const { return views_; }

 private:
  TensorView tensor(DType dtype, const Shape& shape);
  void fill(const TensorView& view, const std::string& name, double low, double high);

  std::string origin_;
  std::int64_t offset_;
  std::vector<Buffer> buffers_;
  reference::OpViews views_;
};

/// Elements as double (real parts).
std::vector<double> values_of(const TensorView& view);
void set_all(const TensorView& view, double value);

}  // namespace caravan::test

// Whoever wants to see intermediate tensors (verify, probe, tests) implements Trace; usually there is none.
#pragma once

#include <string_view>

#include "caravan/core/tensor_view.h"

namespace caravan {

class Trace {
 public:
  virtual ~Trace() = default;
  /// Called after every linear map and segment; `value` is valid during the call only.
  virtual void observe(std::string_view name, const TensorView& value) = 0;
};

}  // namespace caravan

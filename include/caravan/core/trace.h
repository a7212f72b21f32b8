// Whoever wants to see intermediate tensors (verify, probe, tests) implements Trace; usually there is none.
#pragma once

#include <string_view>

#include "caravan/core/tensor_view.h"

namespace caravan {

class Trace {
 public:
  virtual ~Trace() = default;
  /// Called after every linear map under its weight's name, which of a row-parallel map is this rank's
  /// partial sum, and after every segment: "tok_embeddings" with the residual stream [T_stream, D] it begins,
  /// "layers.0.attention" and "layers.0.feed_forward" with what they add to it, summed. `value` is valid
  /// during the call only.
  virtual void observe(std::string_view name, const TensorView& value) = 0;
};

}  // namespace caravan

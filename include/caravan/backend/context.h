// What one call needs: the only road from a segment to the backend, scratch memory and step scalars.
#pragma once

#include "caravan/backend/arena.h"
#include "caravan/backend/backend.h"
#include "caravan/backend/background.h"
#include "caravan/backend/step_scalars.h"
#include "caravan/core/trace.h"

namespace caravan {

/// Nothing here is owned; all of it outlives the call.
struct Context {
  Backend& backend;
  Stream& stream;
  Arena& scratch;  // LIFO inside one segment call
  StepScalars& scalars;
  DType dtype = DType::kFloat32;     // of activations
  Trace* trace = nullptr;            // usually null
  Background* background = nullptr;  // null where nothing is under way, or moves by itself
  double dropout = 0.0;              // rate of residual dropout; 0, and so none, except in training passes

  TensorView allocate(const char* what, const Shape& shape) const {
    return scratch.allocate(what, dtype, shape);
  }
  /// For statistics of activations.
  TensorView allocate_sums(const char* what, const Shape& shape) const {
    return scratch.allocate(what, accumulation_dtype(dtype), shape);
  }
  /// After an op that takes long: whoever waits for the processor gets it for a moment.
  void advance() const {
    if (background != nullptr) {
      background->advance();
    }
  }
  void observe(std::string_view name, const TensorView& value) const {
    if (trace != nullptr) {
      trace->observe(name, value);
    }
  }
};

}  // namespace caravan

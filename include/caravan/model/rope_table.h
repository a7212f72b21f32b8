// Frequencies and tables of the rotary embedding.
#pragma once

#include <vector>

#include "caravan/backend/context.h"
#include "caravan/config/model_config.h"

namespace caravan {

/// freq_j = theta^(−2j/E) for j < E/2, scaled as Llama 3.1 does when `config.rope_scaling` is set: long
/// wavelengths are divided by the factor, short ones kept, those between blended (docs/derivations/rope.md).
/// In double.
std::vector<double> rope_frequencies(const ModelConfig& config);

/// cos and sin of position · freq_j, [positions, E/2], computed in double and rounded once to `dtype`.
class RopeTable {
 public:
  RopeTable(Backend& backend, DType dtype, const ModelConfig& config, std::int64_t positions);
  const TensorView& cos() const { return cos_; }
  const TensorView& sin() const { return sin_; }
  std::int64_t bytes() const { return memory_.bytes(); }

 private:
  Buffer memory_;
  TensorView cos_;
  TensorView sin_;
};

}  // namespace caravan

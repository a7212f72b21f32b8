// What the aggregator does with a collected tensor before it becomes the new global value. By default
// nothing: values travel, and the gathered ones are taken as they are. The options change the step from the
// old value (ours, not part of the reference scheme):
//   Δ = gathered − old, times delta_scale for split parameters;  v = momentum · v + Δ;
//   new = old + lr · (nesterov ? Δ + momentum · v : v)            (outer optimizer, Reddi et al. 2021)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/backend/buffer.h"
#include "caravan/config/run_config.h"
#include "caravan/model/parameter.h"

namespace caravan {

class Aggregation {
 public:
  /// `full` (the aggregator's values, in the order of its parameters) sizes the momentum; nothing is
  /// allocated without momentum. Other ranks pass none: they only ask takes_values_as_they_are().
  explicit Aggregation(const FederatedSection& options, const std::vector<TensorView>& full = {});

  /// True: the gathered values are the new model, no slice has to be sent back.
  bool takes_values_as_they_are() const { return is_plain_; }

  enum class Kind : std::uint8_t { kSplit, kReplicated };
  /// old <- new value from `gathered`. Both contiguous, same shape, float32 or float64. `index` is the
  /// parameter's place in the set.
  void apply(std::size_t index, Kind kind, const TensorView& gathered, const TensorView& old);

  /// The momentum of every parameter in order, to be saved with a checkpoint; empty without momentum.
  const std::vector<TensorView>& momentum() const { return momentum_; }

 private:
  FederatedSection options_;
  bool is_plain_;
  Buffer memory_;
  std::vector<TensorView> momentum_;
};

}  // namespace caravan

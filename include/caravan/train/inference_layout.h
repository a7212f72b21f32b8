// How a model lies on the ranks that evaluate it or generate with it: whole on one, or its heads, MLP rows
// and vocabulary divided over several (tensor parallel: Shoeybi et al. 2019).
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/parallel/mesh_ports.h"
#include "caravan/train/executor.h"

namespace caravan {

class InferenceLayout {
 public:
  /// All ranks of `tp`, which outlives this, hold one model together, for rows of at most `positions` tokens.
  /// Throws ConfigError when the model cannot be divided so.
  InferenceLayout(const ModelConfig& config, DType dtype, std::int64_t positions, Communicator& tp);

  const Llama::Layout& model() const { return layout_; }
  /// With attention over the batch's own tokens.
  Ports ports() const { return ports_.ports(); }
  Ports ports(const AttentionCore& attention) const { return {ports().boundary, attention, ports().vocab}; }
  /// Columns of keys, and of values, on this rank: where ranks share a head each has its own copy.
  std::int64_t kv_width() const { return kv_width_; }
  /// Memory of a forward pass, measured on shapes.
  StepNeeds needs(const Executor::Limits& limits) const;
  /// Rows of logits over the whole vocabulary from the columns that each rank has; the same on all ranks.
  /// Collective.
  std::vector<double> whole_rows(const std::vector<double>& columns) const;

 private:
  ModelConfig config_;
  Communicator& tp_;
  ParallelSection parallel_;
  Llama::Layout layout_;
  MeshPorts ports_;
  std::int64_t kv_width_;
};

}  // namespace caravan

// How a model lies on the ranks that evaluate it or generate with it: whole on one, or over several its
// heads, MLP rows and vocabulary divided (tensor parallel: Shoeybi et al. 2019), its layers in stages
// (pipeline), or both.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/comm/mesh.h"
#include "caravan/parallel/mesh_ports.h"
#include "caravan/parallel/pipeline_schedule.h"
#include "caravan/train/executor.h"

namespace caravan {

/// Ranks that hold one model together.
struct InferenceRanks {
  Communicator& all;  // outlives what is made of it
  /// Stages of layers; the ranks of a stage (tp) divide its heads, MLP rows and vocabulary.
  std::int64_t pp = 1;
};

/// tp and pp. Throws ConfigError, naming what to change, when `ranks` ranks cannot hold `model` so.
MeshSizes inference_mesh(const ModelConfig& model, std::int64_t ranks, std::int64_t pp);

class InferenceLayout {
 public:
  /// For rows of at most `positions` tokens. Throws ConfigError as inference_mesh does. Collective.
  InferenceLayout(const ModelConfig& config, DType dtype, std::int64_t positions,
                  const InferenceRanks& ranks);

  const Llama::Layout& model() const { return layout_; }
  /// With attention over the batch's own tokens.
  Ports ports() const { return ports_.ports(); }
  Ports ports(const AttentionCore& attention) const { return {ports().boundary, attention, ports().vocab}; }
  /// The ranks of this rank's stage, and those that hold the same part of the other stages.
  Communicator& tp() const { return mesh_.axis(MeshAxis::kTp); }
  Communicator& pp() const { return mesh_.axis(MeshAxis::kPp); }
  /// The layers on this rank: all without pp.
  Range layers() const;
  /// Columns of keys, and of values, on this rank: where ranks share a head each has its own copy.
  std::int64_t kv_width() const { return kv_width_; }
  PipelineShape pipeline(std::int64_t micro_batches) const;
  /// Memory of a forward pass of `micro_batches` at most on a device of this kind, measured on shapes.
  StepNeeds needs(const Executor::Limits& limits, std::int64_t micro_batches, DeviceKind kind) const;
  /// Rows of logits over the whole vocabulary from the columns that each rank of a stage has; the same on all
  /// of them. Collective over tp().
  std::vector<double> whole_rows(const std::vector<double>& columns) const;

 private:
  ModelConfig config_;
  MeshSizes sizes_;
  Mesh mesh_;
  ParallelSection parallel_;
  Llama::Layout layout_;
  MeshPorts ports_;
  std::int64_t kv_width_;
};

}  // namespace caravan

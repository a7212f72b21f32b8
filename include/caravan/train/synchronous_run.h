// Synchronous training on a mesh: every step is one update of the whole model by all ranks together.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "caravan/data/batch_loader.h"
#include "caravan/parallel/mesh_groups.h"
#include "caravan/parallel/mesh_layout.h"
#include "caravan/parallel/mesh_ports.h"
#include "caravan/parallel/sharded_store.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/step_batches.h"
#include "caravan/train/trainer.h"

namespace caravan {

/// The parts of one rank that follow from a configuration alone.
struct SynchronousLayout {
  SynchronousLayout(const RunConfig& config, const ModelConfig& model, const MeshSizes& sizes, int rank);

  MeshSizes sizes;
  Coordinates at;
  BatchGeometry geometry;
  PipelineShape pipeline;
  Llama::Layout model;
  Executor::Limits limits;  // of one micro-batch

  bool is_pipelined() const { return pipeline.ranks > 1; }
  /// Micro-batches that are on the device at one time.
  std::int64_t batches_held() const { return is_pipelined() ? pipeline.micro_batches : 1; }
};

/// What one rank of a mesh will hold, found by running the model's code on shapes alone.
struct SynchronousNeeds {
  StepNeeds step;
  std::int64_t value_bytes = 0;       // weights that stay in place
  std::int64_t gradient_bytes = 0;    // gradients that stay in place
  std::int64_t shard_elements = 0;    // this rank updates so many
  std::int64_t store_bytes = 0;       // shards, gathered units and staging of a sharded store
  std::int64_t host_store_bytes = 0;  // of them, what is offloaded to host memory
  ShardedStore::Slots slots;          // of those, what units are leased from
  std::int64_t rope_bytes = 0;
};
SynchronousNeeds measure_synchronous(const RunConfig& config, const ModelConfig& model,
                                     const SynchronousLayout& layout, DeviceKind kind = DeviceKind::kCpu);

class SynchronousRun {
 public:
  struct Setup {
    const RunConfig& config;
    const ModelConfig& model;
    Communicator& world;
    Backend& backend;
    std::int32_t pad_id = 0;
    Backend* host = nullptr;  // computes in host memory (cpu_offload); null: `backend` does
  };
  /// Allocates this rank's part. Throws ConfigError when mesh and model do not go together. Collective.
  explicit SynchronousRun(const Setup& setup);

  /// Fills this rank's shards, then lets every reader see them. Collective.
  void load(const std::function<void(const Context&, const std::vector<ParameterShard>&)>& fill);
  /// One update from a step's whole batch, which every rank has read. Collective.
  StepResult step(const Batch& batch, double lr);
  /// The gradients alone; returns the mean loss. Collective.
  double gradients(const Batch& batch);
  /// Σ token losses of a batch over all ranks. Collective.
  double loss_sum(const Batch& batch);
  Evaluation evaluate(BatchLoader& loader) {
    return caravan::evaluate([&](const Batch& batch) { return loss_sum(batch); }, loader);
  }

  const SynchronousLayout& layout() const { return layout_; }
  Trainer& trainer() { return *trainer_; }
  Llama& model() { return *model_; }
  TrainingStore& store() { return *store_; }
  Communicator& world() { return world_; }
  /// Tests the mesh's groups (MeshGroups::check). Collective.
  void check_groups() { groups_.check(world_); }
  /// Everything this rank has moved over `world` and the groups made of it.
  Traffic traffic() const;

 private:
  std::vector<Batch> parts_of(const Batch& batch) const {
    return micro_batches(batch, layout_.geometry, place_, pad_id_);
  }
  void choose_masks();
  std::vector<Communicator*> exchanging_groups();
  bool can_record_steps(const RunConfig& config, const Backend& backend);

  Communicator& world_;
  std::int32_t pad_id_;
  std::uint64_t seed_;
  SynchronousLayout layout_;
  BatchPlace place_;
  MeshGroups groups_;
  MeshPorts ports_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<TrainingStore> store_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace caravan

// Weights, gradients and optimizer state divided over the ranks that hold copies (ZeRO: Rajbhandari et al.
// 2020, section 5; in the units of FSDP: Zhao et al. 2023), and on request kept in host memory (ZeRO-Offload:
// Ren et al. 2021). A unit is a parameter group: one attention or MLP segment, the embedding, the head.
#pragma once

#include <memory>
#include <vector>

#include "caravan/config/run_config.h"
#include "caravan/parallel/leased_memory.h"
#include "caravan/parallel/training_store.h"
#include "caravan/parallel/unit_packs.h"

namespace caravan {

/// The three stages differ in what is divided. Optimizer state always is. Stage 1: weights and gradients stay
/// whole and in place; a group's gradients are reduced when its last backward of the step is over, and the
/// updated rows are gathered after the update. Stage 2: gradients exist whole only from a group's first
/// backward of a micro-batch to its last, and are reduced each time. Stage 3: weights too exist whole only
/// while leased; the next unit is gathered while the present one computes.
///
/// With offload the shards are in host memory, and what updates them computes there: a unit's reduced
/// gradients are copied to the host and summed there over micro-batches, updated rows are copied to the
/// device before they are gathered. `optimizer` keeps the device's rows beside the host's;
/// `parameters_and_optimizer` (stage 3) copies a unit's rows whenever it is gathered. The arithmetic and its
/// order stay the same, so do the bits.
class ShardedStore final : public TrainingStore {
 public:
  struct Options {
    std::int64_t zero_stage = 3;
    bool reshard_after_forward = true;  // stage 3: false keeps units gathered from forward to backward
    CpuOffload offload = CpuOffload::kNone;
  };
  struct Ranks {
    Communicator& fsdp;       // who divide a copy
    Communicator& replicate;  // who hold the same rows (HSDP)
    std::vector<PartialGroup> partial;
  };
  /// The device where the model computes, and what computes in host memory: the same where the device is the
  /// host.
  struct Backends {
    Backend& device;
    Backend& host;
  };
  /// Sizes of the memory that units are leased from.
  struct Slots {
    std::vector<std::int64_t> values, gradients;
  };
  /// `parameters` were made with leased gradients from stage 2 on, leased values in stage 3. Everything
  /// outlives the store. Collective.
  ShardedStore(ParameterSet& parameters, const Options& options, const Ranks& ranks, const Coordinates& at,
               DType dtype, const Backends& backends);

  static Values values(std::int64_t zero_stage) {
    return zero_stage >= 3 ? Values::kLeased : Values::kAllocated;
  }
  static Gradients gradients(std::int64_t zero_stage) {
    return zero_stage >= 2 ? Gradients::kLeased : Gradients::kAllocated;
  }

  void acquire(int group, LeaseUse use) override;
  void release(int group) override;
  void prefetch(int group, LeaseUse use) override;
  void commit(int group, MicroBatch micro_batch) override;
  void zero_gradients(Context& ctx) override;
  void finish_gradients() override;
  void settle() override;
  void publish_values(Context& ctx) override;

  /// What a step on shapes alone has made of them; a store that is given it makes none in a step.
  Slots slots() const;
  void reserve(const Slots& slots);

  /// Most units whose weights were whole here at one time, the one being gathered included.
  int most_gathered_units() const { return values_ ? values_->most_in_use() : 0; }
  /// Memory of this rank on the device: shards, gathered units, staging.
  std::int64_t device_bytes() const;
  /// And in host memory: shards and staging.
  std::int64_t host_bytes() const;

 private:
  bool is_offloaded() const { return options_.offload != CpuOffload::kNone; }
  void allocate();
  void list_shards(const Coordinates& at);
  Context context(Backend& backend);
  Context device() { return context(backends_.device); }
  Context host() { return context(backends_.host); }
  void start_gather(int group);
  void finish_gather();
  void finish_reduction();
  /// Adds a unit's reduced gradients to this rank's.
  void keep_gradients(const UnitPacks::Unit& unit, const TensorView& sum);
  static TensorView flat(const Buffer& buffer, DType dtype, std::int64_t items) {
    return buffer.view(0, dtype, {items});
  }
  /// A unit's pack among those of all units.
  static TensorView pack_in(const Buffer& packs, const UnitPacks::Unit& unit, DType dtype);

  ParameterSet& parameters_;
  Options options_;
  Ranks ranks_;
  DType dtype_;           // of values
  DType gradient_dtype_;  // what they are summed in
  Backends backends_;
  ReplicatedStore leases_;
  UnitPacks packs_;
  Buffer value_shards_;   // device: this rank's rows, of stage 3 where they are not offloaded
  Buffer grad_shards_;    // their gradients' sums: stages 2 and 3; offloaded: host, any stage
  Buffer host_values_;    // offloaded: the rows that are updated
  Buffer host_arriving_;  // offloaded: a unit's gradients on their way to the host's sums
  Buffer gather_staging_, reduce_staging_, reduced_;
  std::int64_t arriving_bytes_ = 0;  // the communicator's, for a reduction
  std::unique_ptr<LeasedMemory> values_, grads_;
  // At most one gather and one reduction are under way.
  int gathering_ = -1;
  Pending gather_;
  int reducing_ = -1;
  MicroBatch reducing_micro_batch_ = MicroBatch::kLast;
  Pending reduction_;
  std::vector<Pending> replicated_;  // sums over copies (HSDP) of gradient packs, until the end of the step
  // Where weights and gradients are written and read. The group of ranks orders a stream of its own after it
  // when something is started and before it in Pending::wait(); no other stream would be ordered with either.
  Stream stream_{StreamId::kCompute, nullptr};
  Arena no_scratch_;
  StepScalars scalars_;
};

}  // namespace caravan

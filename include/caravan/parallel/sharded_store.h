// Weights, gradients and optimizer state divided over the ranks that hold copies (ZeRO: Rajbhandari et al.
// 2020, section 5; in the units of FSDP: Zhao et al. 2023). A unit is a parameter group: one attention or MLP
// segment, the embedding, the head.
#pragma once

#include <vector>

#include "caravan/parallel/leased_memory.h"
#include "caravan/parallel/training_store.h"

namespace caravan {

/// Rows [begin, end) of a parameter's local part that member `index` of `count` keeps: as even as rows allow.
Range shard_rows(std::int64_t rows, std::int64_t index, std::int64_t count);

/// The three stages differ in what is divided. Optimizer state always is. Stage 1: weights and gradients stay
/// whole and in place; a group's gradients are reduced when its last backward of the step is over, and the
/// updated rows are gathered after the update. Stage 2: gradients exist whole only from a group's first
/// backward of a micro-batch to its last, and are reduced each time. Stage 3: weights too exist whole only
/// while leased; the next unit is gathered while the present one computes.
class ShardedStore final : public TrainingStore {
 public:
  struct Options {
    std::int64_t zero_stage = 3;
    bool reshard_after_forward = true;  // stage 3: false keeps units gathered from forward to backward
  };
  struct Ranks {
    Communicator& fsdp;       // who divide a copy
    Communicator& replicate;  // who hold the same rows (HSDP)
    std::vector<PartialGroup> partial;
  };
  /// Sizes of the memory that units are leased from.
  struct Slots {
    std::vector<std::int64_t> values, gradients;
  };
  /// `parameters` were made with leased gradients from stage 2 on, leased values in stage 3. Everything
  /// outlives the store. Collective.
  ShardedStore(ParameterSet& parameters, const Options& options, const Ranks& ranks, const Coordinates& at,
               DType dtype, Backend& backend);

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
  void finish_gradients(Context& ctx) override;
  void publish_values(Context& ctx) override;

  /// What a step on shapes alone has made of them; a store that is given it makes none in a step.
  Slots slots() const;
  void reserve(const Slots& slots);

  /// Most units whose weights were whole here at one time, the one being gathered included.
  int most_gathered_units() const { return values_ ? values_->most_in_use() : 0; }
  /// Memory of this rank: shards, gathered units, staging.
  std::int64_t bytes() const;

 private:
  /// One parameter in its unit's pack: every member's rows, padded to the same number.
  struct Piece {
    Parameter* parameter = nullptr;
    std::int64_t padded_rows = 0;
    std::int64_t row_items = 0;
    std::int64_t offset = 0;  // elements from the start of a member's pack
  };
  struct Unit {
    std::vector<Piece> pieces;
    std::int64_t pack_items = 0;  // of one member
    TensorView value_pack;        // stage 3: this member's rows, the only copy
    TensorView grad_pack;         // stages 2, 3: its sum
  };

  void lay_out();
  void list_shards(const Coordinates& at);
  Unit& unit(int group) { return units_.at(static_cast<std::size_t>(group)); }
  Context context();
  void pack(const Unit& unit, bool is_gradient, std::int64_t member, const TensorView& to);
  void unpack(const Unit& unit, bool is_gradient, std::int64_t member, const TensorView& from);
  void start_gather(int group);
  void finish_gather();
  void finish_reduction();
  TensorView flat(const Buffer& buffer, std::int64_t items) const { return buffer.view(0, dtype_, {items}); }

  ParameterSet& parameters_;
  Options options_;
  Ranks ranks_;
  DType dtype_;
  Backend& backend_;
  ReplicatedStore leases_;
  std::vector<Unit> units_;
  Buffer value_shards_, grad_shards_;
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
  Stream stream_{StreamId::kParamComm, nullptr};
  Arena no_scratch_;
  StepScalars scalars_;
};

}  // namespace caravan

// Runs a whole model over batches: leases parameters, owns the arenas, walks segments forward and backward.
// Contains no arithmetic of its own but the sum of the tokens' losses.
#pragma once

#include <memory>
#include <vector>

#include "caravan/backend/counting_backend.h"
#include "caravan/model/llama.h"
#include "caravan/model/local_ports.h"
#include "caravan/train/device_batch.h"
#include "caravan/train/recorded_passes.h"
#include "caravan/train/segment_groups.h"
#include "caravan/train/step_executor.h"

namespace caravan {

enum class Pass : std::uint8_t { kForward, kForwardBackward };

/// What one executor needs beside the model: found by running the same code on shapes alone.
struct StepNeeds {
  std::int64_t saved_bytes = 0;    // activations kept from forward to backward
  std::int64_t scratch_bytes = 0;  // everything that lives inside one call
  std::int64_t message_bytes = 0;  // what travels between the stages of a pipeline
  WorkCount work;
};

class Executor final : public StepExecutor {
 public:
  struct Limits {
    std::int64_t batch = 0;    // most rows of a batch
    std::int64_t seq_len = 0;  // most tokens of a row
    Pass pass = Pass::kForwardBackward;
    SavePolicy policy = SavePolicy::none();
    double dropout = 0.0;       // of training passes; evaluation has none
    ContextSplit context = {};  // of the rows' tokens; seq_len is a rank's part
    bool records = true;        // training passes, where device and surroundings allow it

    BatchRoom room() const {
      return {.tokens = batch * seq_len,
              .row_numbers = dropout > 0.0 ? RowNumbers::kKept : RowNumbers::kNone,
              .context = context};
    }
  };
  /// Allocates everything it will ever need. `model` and `backend` outlive it.
  Executor(Llama& model, Backend& backend, const Limits& limits);
  /// What an executor on a mesh is given from outside; all of it outlives the executor.
  struct Surroundings {
    ParamStore* store = nullptr;       // null: parameters are simply in place
    Background* background = nullptr;  // of everything the ranks have under way
    // Passes may be recorded: nobody else takes part in them, or all of them at once, and ...
    bool can_record = false;
    // ... these, the model's ports' and the store's among them, are what they exchange in.
    std::vector<Communicator*> recorded_groups = {};
  };
  /// With needs measured before, for models whose ports cannot run on shapes alone.
  Executor(Llama& model, Backend& backend, const Limits& limits, const StepNeeds& needs)
      : Executor(model, backend, limits, needs, Surroundings{.can_record = true}) {}
  Executor(Llama& model, Backend& backend, const Limits& limits, const StepNeeds& needs,
           const Surroundings& around);

  /// The same of a model on a counting backend, with the store it will have (may be null).
  static StepNeeds measure(Llama& model, CountingBackend& counting, const Limits& limits, ParamStore* store);
  /// Needs of a model of this shape and layout on a device of this kind, without touching memory.
  static StepNeeds measure(const ModelConfig& config, const Llama::Layout& layout, const Ports& ports,
                           const Limits& limits, DeviceKind kind = DeviceKind::kCpu);

  /// Σ token losses of `batch`.
  double loss(const Batch& batch);

  void add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens,
                     const TensorView& loss_sum) override;
  bool records() const override { return records_; }
  double loss_sum(std::span<const Batch> micro_batches) override;
  void observe_forward(std::span<const Batch> micro_batches, Trace& trace) override;
  std::vector<double> logits(const Batch& batch, std::int64_t begin, std::int64_t end) override;
  Context context() override { return context(nullptr); }
  Llama& model() { return model_; }
  const RecordedPasses& recorded() const { return recorded_; }
  std::int64_t saved_high_water() const { return saved_arena_.high_water(); }
  std::int64_t scratch_high_water() const { return scratch_arena_.high_water(); }
  std::int64_t arena_bytes() const { return saved_arena_.capacity() + scratch_arena_.capacity(); }

 private:
  Context context(Trace* trace);
  void run_on_shapes(Pass pass);
  /// One micro-batch of a step.
  void pass(Context& ctx, const TokenBatch& tokens, const TensorView& losses, MicroBatch micro_batch,
            const TensorView& loss_sum);
  void forward_backward(Context& ctx, const TokenBatch& tokens, const TensorView& losses,
                        MicroBatch micro_batch);
  void forward(Context& ctx, const TokenBatch& tokens, ResidualStream& stream);
  void loss(Context& ctx, const TokenBatch& tokens, const TensorView& losses);

  Llama& model_;
  Backend& backend_;
  ReplicatedStore local_store_;
  SegmentGroups groups_;
  Background* background_;
  Limits limits_;
  DeviceBatch device_batch_;
  Arena saved_arena_;
  Arena scratch_arena_;
  Stream stream_;
  StepScalars scalars_;
  std::vector<std::unique_ptr<Saved>> saved_;  // one per segment
  bool records_;
  RecordedPasses recorded_;
};

}  // namespace caravan

// Runs the stages of a pipelined model that this rank has: walks the rank's list of a schedule, micro-batches
// in, messages to and from the neighbours between them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "caravan/parallel/message_ring.h"
#include "caravan/parallel/pipeline_schedule.h"
#include "caravan/parallel/pipeline_simulator.h"
#include "caravan/train/executor.h"

namespace caravan {

/// What is alive of a (micro-batch, stage) has a slot from its forward to the last of its backward: the
/// stage's input, what its segments saved and, where weight gradients are put off, what those need. Between
/// stages travels the residual stream with the pending contribution added to it, and its gradient.
class PipelineExecutor final : public StepExecutor {
 public:
  struct Setup {
    Executor::Limits limits;  // of one micro-batch
    PipelineShape shape;      // with the most micro-batches of a step
    Communicator& ranks;      // of the axis pp, at least two
    ParamStore& store;
    Background* background = nullptr;  // of everything the ranks have under way
  };
  /// Allocates everything it will ever need: with Pass::kForward in the limits nothing for training. `model`
  /// has this rank's stages; it, `backend` and what `setup` refers to outlive the executor.
  PipelineExecutor(Llama& model, Backend& backend, const Setup& setup, const StepNeeds& needs);
  /// The needs of a model on a counting backend with counting communicators; the work is that of a step,
  /// or of a forward pass where that is all.
  static StepNeeds measure(Llama& model, CountingBackend& counting, const Setup& setup);

  void add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens,
                     const TensorView& loss_sum) override;
  double loss_sum(std::span<const Batch> micro_batches) override;
  void observe_forward(std::span<const Batch> micro_batches, Trace& trace) override;
  std::vector<double> logits(const Batch& batch, std::int64_t begin, std::int64_t end) override;
  Context context() override { return context(scratch_arena_, nullptr); }

  /// Where the steps of the lists are noted from now on, in seconds of a steady clock; of a message its start
  /// alone. Null: nowhere.
  void record(std::vector<PipelineTimeline::Interval>* intervals) { recorded_ = intervals; }
  std::int64_t arena_bytes() const;
  /// Most that was in use at a time: of the fullest slot times their number, since all are of one size.
  std::int64_t saved_high_water() const;
  std::int64_t scratch_high_water() const { return scratch_arena_.high_water(); }
  /// Memory of the messages on their way, and of a step's micro-batches on the device.
  std::int64_t message_bytes() const { return activations_.bytes() + gradients_.bytes(); }
  std::int64_t batch_bytes() const;

 private:
  struct Slot {
    Arena arena;
    std::vector<std::unique_ptr<Saved>> saved;  // one per segment of the model
    TensorView input;                           // [T_stream, D] the received stream; none in the first stage
    TensorView output;                          // [T_stream, D] of the last stage: what the head reads
    TensorView gradient;                        // [T_stream, D] while a backward runs: dL/d(stream)
  };
  /// The micro-batches of a step on the device, or their shapes.
  using Tokens = std::vector<TokenBatch>;

  Context context(Arena& scratch, Trace* trace);
  Context training_context(Arena& scratch);
  const std::vector<PipelineStep>& list_of(std::size_t micro_batches);
  const Tokens& upload(std::span<const Batch> micro_batches);
  void walk_training(const Tokens& tokens, const TensorView& loss_sum);
  /// What becomes of a micro-batch's stream where the head is.
  using AtHead = std::function<void(Context&, const TokenBatch&, ResidualStream&)>;
  void walk_forward(const Tokens& tokens, Trace* trace, const AtHead& at_head);
  double walk_losses(const Tokens& tokens, Trace* trace);
  void message(const PipelineStep& step, const TokenBatch& tokens);
  void compute(const PipelineStep& step, const TokenBatch& tokens, MicroBatch micro_batch,
               const TensorView& loss_sum);
  void arrive();

  void run_segments(Context& ctx, const PipelineStep& step, const TokenBatch& tokens, ResidualStream& stream,
                    Slot* slot);
  void forward(const PipelineStep& step, const TokenBatch& tokens);
  void head_backward(const PipelineStep& step, const TokenBatch& tokens, MicroBatch micro_batch,
                     const TensorView& loss_sum);
  void backward(const PipelineStep& step, const TokenBatch& tokens, MicroBatch micro_batch);
  void backward_input(const PipelineStep& step, const TokenBatch& tokens);
  void backward_weight(const PipelineStep& step, const TokenBatch& tokens, MicroBatch micro_batch);

  bool is_last(int stage) const { return stage + 1 == setup_.shape.stages(); }
  const Range& segments_of(int stage) const;
  Slot& slot_of(const PipelineStep& step) { return slots_.at(static_cast<std::size_t>(step.slot)); }

  Llama& model_;
  Backend& backend_;
  Setup setup_;
  SegmentGroups groups_;
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<Saved>> passing_;  // of inference, one per segment: nothing is kept
  Arena scratch_arena_;
  MessageRing activations_;
  MessageRing gradients_;
  std::vector<DeviceBatch> device_batches_;
  Tokens tokens_;
  std::vector<Pending> arriving_;
  std::map<std::size_t, std::vector<PipelineStep>> lists_;  // by number of micro-batches
  Stream stream_;
  StepScalars scalars_;
  std::vector<PipelineTimeline::Interval>* recorded_ = nullptr;
};

}  // namespace caravan

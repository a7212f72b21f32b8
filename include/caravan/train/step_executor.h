// What a trainer needs of whatever runs the model: a whole model on this rank, or the stages of a pipeline.
#pragma once

#include <span>
#include <vector>

#include "caravan/backend/context.h"
#include "caravan/core/trace.h"
#include "caravan/data/batch.h"

namespace caravan {

/// Collective over the ranks that the model is divided among: all of them call the same function with their
/// parts of the same micro-batches.
class StepExecutor {
 public:
  virtual ~StepExecutor() = default;

  /// Adds dL/dθ · loss scale of one step to every gradient, L = Σ token losses of all ranks / valid_tokens,
  /// and Σ token losses to `loss_sum` ([1] float64 where the model computes) where the head is. Waits for
  /// nothing on a device that the ranks' exchanges do not wait for.
  virtual void add_gradients(std::span<const Batch> micro_batches, std::int64_t valid_tokens,
                             const TensorView& loss_sum) = 0;
  /// True where steps are recorded: what is enqueued before and after the passes may be, too.
  virtual bool records() const { return false; }
  /// Σ token losses where the head is, else 0.
  virtual double loss_sum(std::span<const Batch> micro_batches) = 0;
  /// Runs the forward pass again with `trace` listening: to find where a value went wrong.
  virtual void observe_forward(std::span<const Batch> micro_batches, Trace& trace) = 0;
  /// Logits of tokens [begin, end) of `batch`, copied to host as double, row-major [end − begin, V], V the
  /// columns of this rank, where the head is, else empty; at most as many tokens as a chunk of the loss head
  /// (LmHead::chunk_tokens).
  virtual std::vector<double> logits(const Batch& batch, std::int64_t begin, std::int64_t end) = 0;
  /// For optimizers and initialisation, on the same stream.
  virtual Context context() = 0;
};

/// Σ of float32 or float64 values in host memory, in their order.
double sum_on_host(const TensorView& losses);

}  // namespace caravan

// cuDNN's attention on one device: a handle, a plan for each shape that has come, and the memory they work
// in.
#pragma once

#include <map>
#include <memory>
#include <tuple>

#include "kernels/cuda/device_runtime.h"
#include "kernels/cudnn/attention.h"

namespace caravan::cudnn {

/// Computes the attention it takes; the rest is for Caravan's own kernels. A shape's plan is made when the
/// shape comes first, outside of recordings, and stays.
class PlannedAttention {
 public:
  /// Plans `largest`, the pass that takes most memory, of tensors of `dtype`. Allocates no device memory of
  /// ours. Throws DeviceError when cuDNN cannot work here or has no kernel for that shape. `runtime` outlives
  /// this.
  PlannedAttention(cuda::DeviceRuntime& runtime, std::shared_ptr<const Library> library,
                   const AttentionShape& largest, DType dtype);
  ~PlannedAttention();
  PlannedAttention(const PlannedAttention&) = delete;
  PlannedAttention& operator=(const PlannedAttention&) = delete;
  PlannedAttention(PlannedAttention&&) = delete;
  PlannedAttention& operator=(PlannedAttention&&) = delete;

  const Library& library() const { return *library_; }
  /// Of the largest shape's two passes; all others work in the same memory.
  std::int64_t workspace_bytes() const { return workspace_bytes_; }
  /// Allocates it: before the first pass.
  void allocate_workspace();

  /// Enqueues the pass and returns true; or returns false and does nothing: a mask that is not plainly
  /// causal, another type, views that begin elsewhere than at multiples of 16 bytes, and (with a warning,
  /// once for a shape) shapes that cuDNN has no kernel for or not within the workspace. Throws DeviceError
  /// when a call fails.
  bool forward(const AttentionForwardArgs& args, cuda::StreamHandle stream);
  bool backward(const AttentionBackwardArgs& args, cuda::StreamHandle stream);

 private:
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, double>;
  template <class Plan>
  using Plans = std::map<Key, std::unique_ptr<const Plan>>;  // null: own kernels

  static Key key_of(const AttentionShape& shape);
  template <class Plan>
  const Plan* find(Plans<Plan>& plans, const char* pass, const AttentionShape& shape);
  template <class Plan, class Args>
  bool enqueue(Plans<Plan>& plans, const char* pass, const Args& args, cuda::StreamHandle stream);

  cuda::DeviceRuntime& runtime_;
  std::shared_ptr<const Library> library_;
  DType dtype_;
  Handle handle_ = nullptr;
  cuda::StreamHandle stream_ = nullptr;  // the handle's
  Plans<ForwardPlan> forward_;
  Plans<BackwardPlan> backward_;
  std::int64_t workspace_bytes_ = 0;
  Buffer workspace_;
};

}  // namespace caravan::cudnn

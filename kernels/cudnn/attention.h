// Attention by cuDNN, as an alternative to Caravan's own kernels: causal rows in 16 bits, heads in groups,
// deterministic backward pass. The graphs are those of NVIDIA's cudnn-frontend 1.23 (CompositeSDPANode,
// CompositeSDPABackwardNode, causal mask TOP_LEFT), which cuDNN recognises and runs as one kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "caravan/backend/op_args.h"
#include "kernels/cudnn/graph.h"

namespace caravan::cudnn {

/// Heads of up to 128 in multiples of 8.
bool takes_head_dim(std::int64_t head_dim);
/// Whether the graphs compute this: plainly causal rows, as many keys as queries, bfloat16 or float16, and
/// something to compute.
bool takes(const AttentionShape& shape, MaskKind mask, DType dtype);

/// The forward graph for one shape and the kernel that cuDNN runs it as.
class ForwardPlan {
 public:
  /// Of a shape that it takes. Throws DeviceError when cuDNN has no kernel for it.
  ForwardPlan(const std::shared_ptr<const Library>& library, Handle handle, const AttentionShape& shape,
              DType dtype);
  /// Of device memory, aligned to 256 bytes.
  std::int64_t workspace_bytes() const { return graph_.workspace_bytes(); }
  /// On the handle's stream. Views as the op's contract, at multiples of 16 bytes; lse [H, B·S] is cuDNN's
  /// statistic with those strides.
  void run(const AttentionForwardArgs& args, void* workspace) const;

 private:
  Handle handle_;
  Graph graph_;
  Graph::Tensor q_, k_, v_, o_, lse_;
};

/// The deterministic backward graph, likewise.
class BackwardPlan {
 public:
  BackwardPlan(const std::shared_ptr<const Library>& library, Handle handle, const AttentionShape& shape,
               DType dtype);
  /// At least B · H · S² · 2: the deterministic pass stores ds.
  std::int64_t workspace_bytes() const { return delta_bytes_ + graph_.workspace_bytes(); }
  void run(const AttentionBackwardArgs& args, void* workspace) const;

 private:
  Handle handle_;
  std::int64_t delta_bytes_;
  Graph graph_;
  Graph::Tensor q_, k_, v_, o_, lse_, d_o_, dq_, dk_, dv_, delta_;
};

}  // namespace caravan::cudnn

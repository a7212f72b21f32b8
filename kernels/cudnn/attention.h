// Attention by cuDNN, as an alternative to Caravan's own kernels: causal rows in bfloat16, heads in groups,
// deterministic backward pass. The graphs are those of NVIDIA's cudnn-frontend 1.23 (CompositeSDPANode,
// CompositeSDPABackwardNode, causal mask TOP_LEFT), which cuDNN recognises and runs as one kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "caravan/backend/op_args.h"
#include "kernels/cudnn/graph.h"

namespace caravan::cudnn {

/// What the batch's positions are, as the caller knows them: cuDNN's graph has no other mask.
enum class MaskKind : std::uint8_t {
  kCausal,  // one document in a row, positions 0 .. S−1 of queries and keys alike
  kGeneral,
};

/// Throws ConfigError that names what cuDNN's attention cannot do: another mask, queries and keys of
/// different number, another type than bfloat16, heads above 128 or no multiple of 8.
void check_supported(const AttentionShape& shape, MaskKind mask, DType dtype);

/// A forward and a backward graph for one shape, built at once.
class AttentionPlan {
 public:
  /// Throws DeviceError when cuDNN has no kernel for the shape.
  AttentionPlan(const std::shared_ptr<const Library>& library, Handle handle, const AttentionShape& shape);

  /// Device memory that a pass needs at most; aligned to 256 bytes.
  std::int64_t forward_workspace_bytes() const;
  /// At least B · H · S² · 2: the deterministic pass stores ds.
  std::int64_t backward_workspace_bytes() const;

  /// On the handle's stream. Views as the op's contract; lse [H, B·S] is cuDNN's statistic with those
  /// strides.
  void forward(const AttentionForwardArgs& args, void* workspace) const;
  void backward(const AttentionBackwardArgs& args, void* workspace) const;

 private:
  struct Forward {
    Graph graph;
    Graph::Tensor q, k, v, o, lse;
  };
  struct Backward {
    Graph graph;
    Graph::Tensor q, k, v, o, lse, d_o, dq, dk, dv, delta;
  };
  static Forward forward_graph(const std::shared_ptr<const Library>& library, const AttentionShape& shape);
  static Backward backward_graph(const std::shared_ptr<const Library>& library, const AttentionShape& shape);

  Handle handle_;
  std::int64_t delta_bytes_;
  Forward forward_;
  Backward backward_;
};

}  // namespace caravan::cudnn

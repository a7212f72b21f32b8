#include "caravan/parallel/mesh_ports.h"

#include "caravan/core/shard_spec.h"
#include "caravan/model/local_ports.h"
#include "caravan/parallel/gather_attention.h"
#include "caravan/parallel/ring_attention.h"
#include "caravan/parallel/sequence_boundary.h"
#include "caravan/parallel/tensor_boundary.h"
#include "caravan/parallel/vocab_reduce.h"

namespace caravan {

MeshPorts::MeshPorts(const ParallelSection& parallel, const ModelConfig& model, Communicator& tp,
                     Communicator& cp) {
  if (tp.size() == 1) {
    boundary_ = std::make_unique<LocalBoundary>();
    vocab_ = std::make_unique<LocalVocab>();
  } else {
    const ShardSpec rows{{{"tp", 0, 1}}, {}};
    const Coordinates at({{"tp", tp.rank(), tp.size()}});
    vocab_ = std::make_unique<ShardedVocab>(tp, rows.resolve({model.vocab_size}, at).front().begin);
    if (parallel.sequence_parallel) {
      boundary_ = std::make_unique<SequenceBoundary>(tp);
    } else {
      boundary_ = std::make_unique<TensorBoundary>(tp);
    }
  }
  if (cp.size() == 1) {
    attention_ = std::make_unique<LocalAttention>();
  } else if (parallel.context == ContextExchange::kRing) {
    attention_ = std::make_unique<RingAttention>(cp);
  } else {
    attention_ = std::make_unique<GatherAttention>(cp);
  }
}

}  // namespace caravan

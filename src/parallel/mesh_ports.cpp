#include "caravan/parallel/mesh_ports.h"

#include "caravan/core/error.h"
#include "caravan/model/local_ports.h"

namespace caravan {

MeshPorts::MeshPorts(const ParallelSection& /*parallel*/, const ModelConfig& /*model*/, Communicator& tp,
                     Communicator& cp) {
  CARAVAN_CHECK(tp.size() == 1 && cp.size() == 1, "tp {}, cp {}", tp.size(), cp.size());
  boundary_ = std::make_unique<LocalBoundary>();
  attention_ = std::make_unique<LocalAttention>();
  vocab_ = std::make_unique<LocalVocab>();
}

}  // namespace caravan

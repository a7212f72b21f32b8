// The ports of one rank of a mesh: which boundary, attention and vocabulary its model is built with.
#pragma once

#include <memory>

#include "caravan/comm/communicator.h"
#include "caravan/config/run_config.h"
#include "caravan/model/llama.h"

namespace caravan {

class MeshPorts {
 public:
  /// `tp` and `cp` are this rank's groups on these axes (counting ones for a plan) and outlive the ports.
  MeshPorts(const ParallelSection& parallel, const ModelConfig& model, Communicator& tp, Communicator& cp);

  Ports ports() const { return {*boundary_, *attention_, *vocab_}; }

 private:
  std::unique_ptr<Boundary> boundary_;
  std::unique_ptr<AttentionCore> attention_;
  std::unique_ptr<VocabReduce> vocab_;
};

}  // namespace caravan

// Whose attention the ranks compute with: Caravan's own kernels, or cuDNN's.
#pragma once

#include <memory>
#include <string>

#include "caravan/comm/communicator.h"
#include "caravan/config/model_config.h"
#include "caravan/config/run_config.h"
#include "caravan/federated/run_plan.h"
#include "compute_device.h"

namespace caravan::app {

/// Throws ConfigError when the run asks cuDNN for heads that it does not take.
void check_attention(const RunConfig& config, const ModelConfig& model);

/// What was chosen, before it has memory.
struct ComputeAttention {
  std::unique_ptr<cudnn::PlannedAttention> cudnn;  // null: own kernels
  std::string description;                         // for the plan; empty on CPUs
};

/// For what the ranks of `world` compute on. With attention: cudnn every rank opens a cuDNN and plans its
/// largest training pass; the memory that this takes is added to `plan`. Throws AgreedError, naming the first
/// rank at fault, where the ranks compute on CPUs, where a rank has no cuDNN that can be used or no kernel
/// for the pass, and where the ranks' versions differ. Collective.
ComputeAttention choose_attention(const ComputeDevice& device, const RunConfig& config, RunPlan& plan,
                                  Communicator& world);

/// From here on the device's backend computes with what was chosen. After require_device_memory, and before
/// anybody uses the backend: it is another one.
void use_attention(ComputeDevice& device, ComputeAttention attention);

}  // namespace caravan::app

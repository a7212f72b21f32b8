#include "compute_attention.h"

#include <fmt/format.h>

#include <utility>

#include "failure.h"

namespace caravan::app {
namespace {

/// The first rank's reason ends the run on all of them.
void require(Communicator& world, const std::string& reason_here) {
  const std::string reason = reason_of_first_rank(world, reason_here);
  if (!reason.empty()) {
    throw AgreedError(fmt::format("attention is cudnn, but {}", reason), kExitFailure);
  }
}

std::unique_ptr<cudnn::PlannedAttention> open_cudnn(const ComputeDevice& device, DType dtype,
                                                    const AttentionShape& largest, Communicator& world) {
  const cudnn::Search found = cudnn::find();
  require(world, found.library != nullptr ? "" : found.why_none());
  std::string version = found.library->version();
  world.broadcast_bytes(version, 0);
  require(world, found.library->version() == version
                     ? ""
                     : fmt::format("{} is cuDNN {} and rank 0 has {}: all ranks need one version",
                                   found.library->path(), found.library->version(), version));
  std::unique_ptr<cudnn::PlannedAttention> attention;
  std::string problem;
  try {
    attention = std::make_unique<cudnn::PlannedAttention>(*device.gpu.runtime, found.library, largest, dtype);
  } catch (const DeviceError& error) {
    problem = error.what();
  }
  require(world, problem);
  return attention;
}

}  // namespace

void check_attention(const RunConfig& config, const ModelConfig& model) {
  if (config.attention == AttentionChoice::kCudnn && !cudnn::takes_head_dim(model.head_dim)) {
    fail<ConfigError>(
        "attention is cudnn, which takes heads of up to 128 in multiples of 8, but this model's are of {}; "
        "set attention to own",
        model.head_dim);
  }
}

ComputeAttention choose_attention(const ComputeDevice& device, const RunConfig& config, RunPlan& plan,
                                  Communicator& world) {
  ComputeAttention chosen;
  if (config.attention == AttentionChoice::kOwn) {
    chosen.description = device.is_gpu() ? "Caravan's own kernels" : "";
    return chosen;
  }
  if (!device.is_gpu()) {
    throw AgreedError(
        "attention is cudnn, which computes on GPUs, but the ranks compute on CPUs; set attention to own, or "
        "device to cuda",
        kExitUsage);
  }
  chosen.cudnn = open_cudnn(device, config.dtype, plan.attention, world);
  const std::int64_t bytes = world.all_reduce_value(chosen.cudnn->workspace_bytes(), ReduceOp::kMax);
  for (RankMemory* memory : {&plan.aggregator, &plan.trainer}) {
    memory->device.emplace_back("scratch of cuDNN", bytes);
  }
  chosen.description =
      fmt::format("cuDNN {} ({})", chosen.cudnn->library().version(), chosen.cudnn->library().path());
  return chosen;
}

void use_attention(ComputeDevice& device, ComputeAttention attention) {
  if (attention.cudnn == nullptr) {
    return;
  }
  attention.cudnn->allocate_workspace();
  device.gpu.backend.reset();  // of the two only one may be there: it serves copies of device memory
  device.gpu.backend = make_cuda_backend(*device.gpu.runtime, std::move(attention.cudnn));
}

}  // namespace caravan::app

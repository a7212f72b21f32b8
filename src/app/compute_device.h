// What the ranks compute on.
#pragma once

#include <memory>
#include <string>

#include "caravan/backend/backend.h"
#include "caravan/comm/communicator.h"
#include "caravan/config/run_config.h"
#include "caravan/federated/run_plan.h"
#include "kernels/cuda/open_device.h"

namespace caravan::app {

/// One rank's devices, for the time of a command.
struct ComputeDevice {
  std::unique_ptr<Backend> host;
  cuda::OpenDevice gpu;       // empty on CPUs
  std::string gpu_of_job;     // host and bus id: the same on ranks that share the GPU, on no others
  std::string memory_of_job;  // likewise of its memory: instances of a divided GPU have their own

  bool is_gpu() const { return gpu.backend != nullptr; }
  Backend& backend() const { return is_gpu() ? *gpu.backend : *host; }
};

/// All ranks get the same kind. kAuto takes GPUs when every rank has one that computes in `dtype`. A rank's
/// GPU is the one of its number among the ranks of its machine, turn by turn where there are fewer. Throws
/// AgreedError naming the ranks at fault: no usable GPU where one is asked for, or GPUs of different types.
/// Collective.
ComputeDevice open_compute_device(DeviceChoice choice, DType dtype, Communicator& world);

/// "rank 3 on node2: " and `mine` of the first rank that gives one; empty when none does. Collective.
std::string reason_of_first_rank(Communicator& world, const std::string& mine);

/// The kind that the configuration names; of one that leaves it open CPUs, until the device is opened.
DeviceKind configured_kind(DeviceChoice choice, DType dtype);

/// Adds what the libraries take of a GPU's memory as soon as they are used, beside the model; nothing on
/// CPUs.
void add_library_memory(const ComputeDevice& device, RankMemory& memory);

/// What a training run changes to take less of a GPU's memory, for require_device_memory.
std::string training_remedy(TrainMode mode);

/// Throws AgreedError, with the memory of this rank by category and the command's `remedy`, where a GPU has
/// less free than its ranks will hold. Collective; nothing on CPUs.
void require_device_memory(const ComputeDevice& device, const RankMemory& mine, const std::string& remedy,
                           Communicator& world);

}  // namespace caravan::app

// The ranks of the job as the computation sees them: a group that moves tensors of what they compute on.
#pragma once

#include <memory>
#include <string>

#include "caravan/backend/device_streams.h"
#include "caravan/comm/communicator.h"
#include "caravan/core/comm_backend.h"
#include "kernels/cuda/device_runtime.h"

namespace caravan::app {

/// Goes before the device and after every group that was made from it.
struct ComputeRanks {
  std::unique_ptr<DeviceStreams> streams;  // null on CPUs
  std::unique_ptr<Communicator> group;     // null on CPUs: the world itself
  std::string description;                 // of what carries device tensors; empty on CPUs

  Communicator& all(Communicator& world) const { return group != nullptr ? *group : world; }
};

/// `gpu` is this rank's device, null when all ranks compute on CPUs; `key` is comm.backend. ConfigError for a
/// wrong COMM_BACKEND and for comm.backend: nccl on CPUs; CommError as choose_device_comm. Says on rank 0
/// when the key and the environment differ. Collective.
ComputeRanks open_compute_ranks(cuda::DeviceRuntime* gpu, CommBackend key, Communicator& world);

}  // namespace caravan::app

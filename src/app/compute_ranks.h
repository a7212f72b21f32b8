// The ranks of the job as the computation sees them: a group that moves tensors of what they compute on.
#pragma once

#include <memory>
#include <string>

#include "caravan/backend/device_streams.h"
#include "caravan/comm/communicator.h"
#include "caravan/core/comm_backend.h"
#include "compute_device.h"

namespace caravan::app {

/// Goes before the device, and after every group that was made from it.
struct ComputeRanks {
  std::unique_ptr<DeviceStreams> streams;  // null on CPUs
  std::unique_ptr<Communicator> group;     // null on CPUs: the world itself
  std::string description;                 // of what carries device tensors; empty on CPUs

  Communicator& all(Communicator& world) const { return group != nullptr ? *group : world; }
};

/// For what the ranks of `world` compute on; `key` is comm.backend. AgreedError for a wrong COMM_BACKEND, for
/// comm.backend: nccl on CPUs, and where choose_device_comm refuses. Says so when the key and the environment
/// differ. `device` outlives the result. Collective.
ComputeRanks open_compute_ranks(const ComputeDevice& device, CommBackend key, Communicator& world);

}  // namespace caravan::app

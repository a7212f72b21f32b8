// The ranks of the job as the computation sees them: a group that moves tensors of what they compute on.
#pragma once

#include <memory>
#include <string>

#include "caravan/backend/device_streams.h"
#include "caravan/comm/communicator.h"
#include "caravan/config/run_config.h"
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

/// What a configuration says of them.
struct WantedRanks {
  CommBackend backend = CommBackend::kAuto;  // comm.backend
  GraphChoice graphs = GraphChoice::kAuto;   // cuda_graphs, of steps that ranks exchange in
};
/// For what the ranks of `world` compute on. AgreedError for a wrong COMM_BACKEND, for what CPUs do not have
/// (comm.backend: nccl, cuda_graphs: always), for cuda_graphs: always over MPI, and where choose_device_comm
/// refuses. Says so when comm.backend and the environment differ. `device` outlives the result. Collective.
ComputeRanks open_compute_ranks(const ComputeDevice& device, const WantedRanks& keys, Communicator& world);

}  // namespace caravan::app

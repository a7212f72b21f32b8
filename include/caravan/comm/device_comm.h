// The one place that decides how device tensors travel between ranks, and makes the groups that do it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "caravan/backend/device_streams.h"
#include "caravan/comm/communicator.h"
#include "caravan/comm/nccl_library.h"
#include "caravan/comm/staged_communicator.h"
#include "caravan/core/comm_backend.h"

namespace caravan {

/// What COMM_BACKEND asks for; absent where it is not set. ConfigError for a word that is none of ours.
std::optional<CommBackend> comm_backend_of_environment();

/// What the key comm.backend and the environment ask for together.
struct WantedCommBackend {
  CommBackend backend = CommBackend::kAuto;
  std::string contradiction;  // a sentence where the two differ; the key wins unless it is auto
};
WantedCommBackend wanted_comm_backend(CommBackend key);

/// How device tensors travel: the same on every rank but for paths.
struct DeviceComm {
  std::shared_ptr<const NcclLibrary> nccl;  // null: MPI
  DevicePath path = DevicePath::kThroughHost;
  std::string description;  // for the plan: "NCCL 2.28.9 (/usr/lib/libnccl.so.2)"
};

/// Looks for what is wanted on every rank. `gpu` names this rank's device among all of the job. With kAuto
/// NCCL where every rank has it, in one version, and a GPU of its own; else MPI, and the description says
/// why. With kNccl CommError on every rank where one has none; ranks that share a GPU then get an NCCL_HOSTID
/// each, unless it is set. Collective; before NCCL is first used.
DeviceComm choose_device_comm(CommBackend wanted, Communicator& world, const std::string& gpu);

/// The ranks of `host` as a group that serves host memory and `device`, which outlives it. Collective.
std::unique_ptr<Communicator> make_device_group(std::unique_ptr<Communicator> host, DeviceStreams& device,
                                                const DeviceComm& comm);

}  // namespace caravan

#include "compute_ranks.h"

#include <fmt/format.h>

#include "caravan/comm/device_comm.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "kernels/cuda/device_streams.h"
#include "machine.h"

namespace caravan::app {

ComputeRanks open_compute_ranks(cuda::DeviceRuntime* gpu, CommBackend key, Communicator& world) {
  const WantedCommBackend wanted = wanted_comm_backend(key);
  if (!wanted.contradiction.empty() && world.rank() == 0) {
    log::warning("{}", wanted.contradiction);
  }
  if (gpu == nullptr) {
    if (key == CommBackend::kNccl) {
      fail<ConfigError>(
          "comm.backend is nccl, which carries tensors of GPUs, but the ranks compute on CPUs; set it to "
          "auto, "
          "or device to cuda");
    }
    return {};
  }
  ComputeRanks ranks;
  ranks.streams = cuda::make_device_streams(*gpu);
  if (world.size() == 1) {
    ranks.group = std::make_unique<SelfCommunicator>(*ranks.streams);
    return ranks;
  }
  const DeviceComm comm =
      choose_device_comm(wanted.backend, world, fmt::format("{} {}", host_name(), ranks.streams->bus_id()));
  auto host = MpiCommunicator::over_world();
  host->set_name("world");
  ranks.group = make_device_group(std::move(host), *ranks.streams, comm);
  ranks.description = comm.description;
  return ranks;
}

}  // namespace caravan::app

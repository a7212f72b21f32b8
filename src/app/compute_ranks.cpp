#include "compute_ranks.h"

#include <fmt/format.h>

#include <utility>

#include "caravan/comm/device_comm.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "caravan/core/log.h"
#include "failure.h"
#include "kernels/cuda/device_streams.h"

namespace caravan::app {
namespace {

/// Where it fails every rank has the same error, and one tells it.
DeviceComm choose(CommBackend wanted, Communicator& world, const std::string& gpu) {
  try {
    return choose_device_comm(wanted, world, gpu);
  } catch (const CommError& error) {
    throw AgreedError(error.what(), kExitFailure);
  }
}

}  // namespace

ComputeRanks open_compute_ranks(const ComputeDevice& device, const WantedRanks& keys, Communicator& world) {
  WantedCommBackend wanted;
  agree([&] {
    wanted = wanted_comm_backend(keys.backend);
    if (keys.graphs == GraphChoice::kAlways && !device.is_gpu()) {
      fail<ConfigError>(
          "cuda_graphs is always, but the ranks compute on CPUs, which have none; set it to auto, or device "
          "to cuda");
    }
    if (keys.backend == CommBackend::kNccl && !device.is_gpu()) {
      fail<ConfigError>(
          "comm.backend is nccl, which carries tensors of GPUs, but the ranks compute on CPUs; set it to "
          "auto, or device to cuda");
    }
  });
  if (!wanted.contradiction.empty()) {
    log::warning("{}", wanted.contradiction);
  }
  ComputeRanks ranks;
  if (!device.is_gpu()) {
    return ranks;
  }
  ranks.streams = cuda::make_device_streams(*device.gpu.runtime);
  if (world.size() == 1) {
    ranks.group = std::make_unique<SelfCommunicator>(*ranks.streams);
    return ranks;
  }
  const DeviceComm comm = choose(wanted.backend, world, device.gpu_of_job);
  if (keys.graphs == GraphChoice::kAlways && comm.nccl == nullptr) {
    throw AgreedError(
        fmt::format(
            "cuda_graphs is always, but tensors travel by {}, where the host takes part in a step; set "
            "comm.backend to nccl, or cuda_graphs to auto",
            comm.description),
        kExitUsage);
  }
  auto host = MpiCommunicator::over_world();
  host->set_name("world");
  ranks.group = make_device_group(std::move(host), *ranks.streams, comm);
  ranks.description = comm.description;
  return ranks;
}

}  // namespace caravan::app

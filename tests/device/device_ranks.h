// Ranks that have the device under test each.
#pragma once

#include <fmt/format.h>

#include <memory>

#include "caravan/comm/device_comm.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/mpi_session.h"
#include "device_under_test.h"
#include "kernels/cuda/device_streams.h"
#include "src/app/machine.h"

namespace caravan::test {

/// As long as the program, like the device under it.
inline DeviceStreams& streams() {
  static const std::unique_ptr<DeviceStreams> opened =
      cuda::make_device_streams(*device_under_test().runtime);
  return *opened;
}

inline std::unique_ptr<Backend> device_backend() {
  return make_cuda_backend(*device_under_test().runtime);
}

/// All ranks, over MPI unless COMM_BACKEND says otherwise.
inline std::unique_ptr<Communicator> device_world() {
  Communicator& world = MpiSession::current().world();
  const DeviceComm comm = choose_device_comm(comm_backend_of_environment().value_or(CommBackend::kMpi), world,
                                             fmt::format("{} {}", app::host_name(), streams().bus_id()));
  return make_device_group(MpiCommunicator::over_world(), streams(), comm);
}

}  // namespace caravan::test

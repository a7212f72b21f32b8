// Ranks that have the device under test each.
#pragma once

#include <memory>

#include "caravan/comm/device_comm.h"
#include "caravan/comm/mpi_communicator.h"
#include "caravan/comm/mpi_session.h"
#include "device_under_test.h"
#include "kernels/cuda/device_streams.h"

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

/// All ranks, over MPI.
inline std::unique_ptr<Communicator> device_world() {
  const DeviceComm comm = choose_device_comm(CommBackend::kMpi, MpiSession::current().world(),
                                             fmt::format("device {}", MpiSession::current().world().rank()));
  return make_device_group(MpiCommunicator::over_world(), streams(), comm);
}

}  // namespace caravan::test

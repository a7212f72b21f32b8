// Whether the MPI library reads device memory itself.
#include <mpi.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include "caravan/comm/staged_communicator.h"

namespace caravan {

DevicePath mpi_device_path() {
#if defined(MPIX_CUDA_AWARE_SUPPORT)
  return MPIX_Query_cuda_support() != 0 ? DevicePath::kDirect : DevicePath::kThroughHost;
#else
  return DevicePath::kThroughHost;
#endif
}

}  // namespace caravan

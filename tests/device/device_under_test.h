// The device a test of this folder runs on.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>

#include "caravan/comm/mpi_session.h"
#include "kernels/cuda/open_device.h"
#include "support/shared_files.h"

namespace caravan::test {

/// False, with the reason said and the test program skipped, where there is no device.
inline bool device_or_skip() {
  const cuda::DeviceCount found = cuda::count_devices();
  if (found.count == 0) {
    WARN("skipped: " << found.reason_for_none);
    something_was_skipped() = true;
  }
  return found.count > 0;
}

/// Opened once, and open as long as the program: backends are made over it. Ranks of one machine take the
/// next one each, as the program's do.
inline cuda::OpenDevice& device_under_test() {
  static cuda::OpenDevice opened =
      cuda::open_device((MpiSession::exists() ? MpiSession::current().local_rank() : 0) %
                        std::max(1, cuda::count_devices().count));
  return opened;
}

}  // namespace caravan::test

// Whether there is a GPU to use.
#pragma once

#include <string>

namespace caravan::cuda {

struct DeviceCount {
  int count = 0;
  /// "no usable GPU: ...", in CUDA's words and with a remedy; empty where there is one.
  std::string reason_for_none;
  /// There is a driver, and something is wrong with it or its GPUs: other than that there are none.
  bool is_broken = false;
};

/// GPUs that CUDA gives this process (CUDA_VISIBLE_DEVICES counts). Never throws: no driver, or one that is
/// too old, is a reason.
DeviceCount count_devices();

/// "the driver is for CUDA 12.4, this program needs one for CUDA 13.0 or later", from versions as CUDA writes
/// them (12040; 0: there is no driver). A driver of a major version runs programs of all its minor ones.
std::string describe_driver(int driver, int runtime);

/// "CUDA 13.0 for 80-real 90", or "without CUDA": what this program was built with.
std::string build_description();

}  // namespace caravan::cuda

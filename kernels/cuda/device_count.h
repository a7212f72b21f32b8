// Whether there is a GPU to use.
#pragma once

#include <string>

namespace caravan::cuda {

struct DeviceCount {
  int count = 0;
  std::string
      reason_for_none;  // "no usable GPU: ...", in CUDA's words and with a remedy; empty where there is one
};

/// GPUs that CUDA gives this process (CUDA_VISIBLE_DEVICES counts). Never throws: no driver, or one that is
/// too old, is a reason.
DeviceCount count_devices();

}  // namespace caravan::cuda

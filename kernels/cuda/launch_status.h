// What becomes of a kernel's launch.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/cuda/named_call.h"

namespace caravan::cuda {

/// What to do about an error, for the end of a message.
std::string remedy(cudaError_t status);

/// "norm.cu:67"
std::string place_of(const NamedCall& call);

/// Throws DeviceError with the kernel's name and the place of its launch, CUDA's name and words for the
/// error, and what to do about it, unless `status` is cudaSuccess.
void check_launch(const NamedCall& kernel, cudaError_t status);

/// Under `caravan --sync-kernels` (CARAVAN_SYNC_KERNELS=1) waits until the stream has run `kernel`, so that a
/// fault while it runs is thrown here, with its name, and not at some later call. Does nothing otherwise, nor
/// while the stream's work is being captured.
void after_launch(const NamedCall& kernel, cudaStream_t stream);

/// The switch itself, whose first value is the environment's.
void set_sync_kernels(bool is_on);
bool syncs_kernels();

}  // namespace caravan::cuda

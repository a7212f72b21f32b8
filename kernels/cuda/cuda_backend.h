// The CUDA backend: hand-written kernels, and cuBLASLt for the large products.
#pragma once

#include <memory>

#include "caravan/backend/backend.h"
#include "kernels/cuda/device_runtime.h"
#include "kernels/cudnn/planned_attention.h"

namespace caravan {

/// The table of ops over one device. Computes in float32 and in bfloat16, where sums, statistics, rotary
/// tables and weight gradients are float32. Ops are enqueued and return at once, but a copy between host and
/// device, which is done on return. Every stream of the context is the runtime's own, by its id. What
/// `attention` takes of attention it computes (null: nothing).
std::unique_ptr<Backend> make_cuda_backend(cuda::DeviceRuntime& runtime,
                                           std::unique_ptr<cudnn::PlannedAttention> attention = nullptr);

}  // namespace caravan

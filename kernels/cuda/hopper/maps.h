// Tensor maps: what a bulk tensor copy knows of a tensor in global memory.
#pragma once

#include <cstdint>

namespace caravan::cuda::hopper {

/// CUDA's CUtensorMap, opaque. A kernel takes it as `const CARAVAN_GRID_CONSTANT TensorMap`: the copy unit
/// reads it from the parameters.
struct alignas(128) TensorMap {
  std::uint64_t words[16];
};

/// A bfloat16 tensor [batch · tokens, heads · head_dim], contiguous, that begins at a multiple of 16 bytes.
struct HeadTensor {
  const void* data;
  std::int64_t batch, tokens, heads, head_dim;
};

/// The tensor in boxes of `rows` tokens × 64 columns of one head, coordinates (column, token, head, batch
/// row), in shared memory under the 128-byte swizzle. Tokens beyond the last of a batch row read as zeros and
/// are not written. Kept by address and sizes: the driver is asked once for each. Throws DeviceError.
TensorMap tensor_map(const HeadTensor& x, int rows);

}  // namespace caravan::cuda::hopper

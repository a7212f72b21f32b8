// Which attention kernels a GPU uses.
#pragma once

#include <cstdint>

namespace caravan::cuda {

/// For the launches of this process from here on: where compute_capability is 90 (9.0) the kernels of
/// kernels/cuda/hopper for what they take, else the portable ones. The environment's
/// CARAVAN_HOPPER_ATTENTION=0 chooses the portable ones there too. Throws ConfigError on a value that is not
/// 0 or 1, and on 1 where the Hopper kernels cannot run.
///
/// shared_bytes: what a block may have. Where that is less than the backward pass of heads of 128 takes on
/// tensor cores (129 KiB; compute capability 8.6, 8.9 and 12 have 99), it runs without them.
void choose_attention(int compute_capability, std::int64_t shared_bytes);

/// True after a choice of the Hopper kernels.
bool uses_hopper_attention();
/// What a block may have; before a choice, that of compute capability 8.0.
std::int64_t shared_bytes_of_block();

}  // namespace caravan::cuda

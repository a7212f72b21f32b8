// Which attention kernels a GPU of compute capability 9.0 uses.
#pragma once

namespace caravan::cuda {

/// For the launches of this process from here on, by the environment's CARAVAN_HOPPER_ATTENTION: unset or 0,
/// the portable kernels; 1, those of kernels/cuda/hopper for what they take. Throws ConfigError on another
/// value, and on 1 where compute_capability is not 90 (9.0).
void choose_attention(int compute_capability);

/// True after a choice of the Hopper kernels.
bool uses_hopper_attention();

}  // namespace caravan::cuda

// Which attention kernels a GPU of compute capability 9.0 uses.
#pragma once

namespace caravan::cuda {

/// For the launches of this process from here on: where compute_capability is 90 (9.0) the kernels of
/// kernels/cuda/hopper for what they take, else the portable ones. The environment's
/// CARAVAN_HOPPER_ATTENTION=0 chooses the portable ones there too. Throws ConfigError on a value that is not
/// 0 or 1, and on 1 where the Hopper kernels cannot run.
void choose_attention(int compute_capability);

/// True after a choice of the Hopper kernels.
bool uses_hopper_attention();

}  // namespace caravan::cuda

// Which library carries the tensors of a device between ranks.
#pragma once

#include <cstdint>

namespace caravan {

enum class CommBackend : std::uint8_t { kAuto, kNccl, kMpi };  // auto | nccl | mpi

}  // namespace caravan

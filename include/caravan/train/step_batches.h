// One step's batch divided into what a rank runs: its rows, in micro-batches, and its part of their tokens.
#pragma once

#include <vector>

#include "caravan/data/batch_slice.h"
#include "caravan/parallel/mesh_layout.h"

namespace caravan {

/// This rank's place where a batch is divided.
struct BatchPlace {
  std::int64_t data_rank = 0;     // dp_replicate · size(dp_shard) + dp_shard
  std::int64_t context_rank = 0;  // cp
};
BatchPlace batch_place(const Coordinates& at);

/// The micro-batches of `place`, the same number with the same shape on every rank. A batch with fewer rows
/// than usual (an epoch's last) is spread evenly; ranks without a row get padding.
std::vector<Batch> micro_batches(const Batch& batch, const BatchGeometry& geometry, const BatchPlace& place,
                                 std::int32_t pad_id);

}  // namespace caravan

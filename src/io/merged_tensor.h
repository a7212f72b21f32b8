// One parameter under Meta's name, however its bytes are spread over files.
#pragma once

#include <vector>

#include "caravan/core/shard_spec.h"
#include "caravan/core/tensor_view.h"
#include "caravan/io/llama_names.h"
#include "caravan/io/stored_tensor.h"

namespace caravan {

struct MergedTensor {
  TensorInfo info;                  // Meta's name, global shape
  std::vector<StoredTensor> parts;  // in order along split_dim
  int split_dim = 0;
  std::int64_t hf_head_dim = 0;  // rows are in Hugging Face's order within heads of this size; 0: as they are
};

/// As CheckpointReader::read, on the calling thread.
void read_region(const MergedTensor& tensor, const Region& region, const TensorView& destination);

/// The same on all threads of core/parallel_for, block by block in the order of the file, where it is large.
void read_region_on_threads(const MergedTensor& tensor, const Region& region, const TensorView& destination);

/// True when both have the same dtype, shape and bytes; reads a few MiB at a time and stops at the first
/// difference.
bool are_equal(const MergedTensor& a, const MergedTensor& b);

}  // namespace caravan

// Small training checkpoints written by simulated ranks in one process. Every element says which tensor,
// which index and which step it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "caravan/io/sharded_checkpoint_reader.h"
#include "caravan/io/sharded_checkpoint_writer.h"

namespace caravan::test {

/// Row by row, column by column, both, whole on one rank, of no elements, a single number; several dtypes.
std::vector<GlobalTensor> sample_tensors();

/// All bytes of a tensor at a step.
std::vector<std::byte> sample_content(const GlobalTensor& tensor, std::int64_t step);

/// The bytes of a region, contiguous.
std::vector<std::byte> cut_out(const GlobalTensor& tensor, const std::vector<std::byte>& content,
                               const Region& region);

/// What rank `rank` of `ranks` owns of the tensor: uneven cuts that tile it.
Region owned_region(const GlobalTensor& tensor, std::int64_t rank, std::int64_t ranks);

struct SampleWrite {
  std::int64_t step = 100;
  std::int64_t ranks = 4;
  std::string id = "0123456789abcdef";
  std::int64_t max_piece_bytes = ShardedCheckpointWriter::kMaxPieceBytes;
};

/// What one rank of a sample checkpoint writes; `memory` keeps the bytes the sources point to.
std::vector<ShardSource> sample_sources(const SampleWrite& what, std::int64_t rank,
                                        std::vector<std::vector<std::byte>>& memory);

/// Writes `<parent>/step_<N>` as the ranks and rank 0 do; returns the folder.
std::string write_sample(const std::string& parent, const SampleWrite& what = {});

/// True when every tensor, read as `ranks` ranks would, has the bytes of its step.
bool holds_sample(ShardedCheckpointReader& reader, std::int64_t ranks);

}  // namespace caravan::test

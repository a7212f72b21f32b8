// How a gatherv or scatterv is cut into calls whose counts and displacements fit MPI's int. Pure arithmetic
// on addresses; no MPI.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "caravan/core/tensor_view.h"

namespace caravan::detail {

/// One MPI_Gatherv or MPI_Scatterv: per rank a count of elements and its displacement from `base`.
struct GatherCall {
  char* base = nullptr;
  std::vector<int> counts;
  std::vector<int> displacements;
};

/// Covers every part but root's own (which never travels) in ascending order of addresses. Nothing is staged:
/// elements go straight to and from the parts. In one call every rank has at most one contiguous piece,
/// pieces do not overlap, and base + max_count elements reaches beyond all of them; so parts of one tensor
/// within max_count elements make one call. A rank's pieces over all calls follow each other in its tensor.
std::vector<GatherCall> plan_gather_calls(std::span<const TensorView> parts, int root,
                                          std::int64_t max_count);

}  // namespace caravan::detail

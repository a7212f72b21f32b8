// What a mesh means for a model and a batch: sizes resolved and checked, the coordinates by which tensors are
// cut, the rows and tokens of a step that are a rank's own. Pure functions of numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/comm/mesh.h"
#include "caravan/config/model_config.h"
#include "caravan/config/run_config.h"
#include "caravan/core/shard_spec.h"
#include "caravan/parallel/pipeline_schedule.h"

namespace caravan {

/// The sizes of `parallel` on `ranks` ranks, -1 resolved. Throws ConfigError, naming what to change, when
/// they do not make `ranks`.
MeshSizes resolve_mesh(const ParallelSection& parallel, std::int64_t ranks);

/// The fewest ranks that `parallel` fits: an axis of -1 takes one.
std::int64_t smallest_mesh(const ParallelSection& parallel);

/// Everything about this mesh that `model` and the batch cannot have; empty: all is well.
std::vector<std::string> mesh_problems(const RunConfig& config, const ModelConfig& model,
                                       const MeshSizes& sizes);

/// True when the residual stream is cut by tokens over tp.
bool cuts_sequence(const ParallelSection& parallel, const MeshSizes& sizes);

/// True when the ranks of dp_shard and cp divide a copy's weights, gradients or optimizer state among them;
/// offloaded shards do, however few the ranks.
bool divides_copies(const ParallelSection& parallel, const MeshSizes& sizes);

/// Where rank `rank` stands on the five axes and on those derived from them: "kv" and "kv_copies" (tp cut
/// into groups that share key and value heads), "sp" (tp when cuts_sequence, else one member), "fsdp"
/// (dp_shard and cp together: the ranks that divide a copy's weights), "cp_copies" (cp where its ranks hold
/// the same weights, else one member), "table_copies" (the first and the last rank of pp: of a tied model
/// both hold the embedding).
Coordinates mesh_coordinates(const ParallelSection& parallel, const ModelConfig& model,
                             const MeshSizes& sizes, int rank);

/// One step's samples.
struct BatchGeometry {
  std::int64_t batch_size = 0;      // samples of a step, over all ranks
  std::int64_t data_ranks = 1;      // dp_replicate · dp_shard: the samples are divided among so many
  std::int64_t rows_per_rank = 0;   // batch_size / data_ranks
  std::int64_t micro_batch = 0;     // rows run at a time
  std::int64_t context_ranks = 1;   // cp: a row's tokens are divided among so many
  std::int64_t token_multiple = 1;  // rows are padded to a multiple of so many places

  /// Places of the longest row, padded, and this rank's part of them.
  std::int64_t padded(std::int64_t seq_len) const {
    return (seq_len + token_multiple - 1) / token_multiple * token_multiple;
  }
  std::int64_t local_seq_len(std::int64_t seq_len) const { return padded(seq_len) / context_ranks; }
};
BatchGeometry batch_geometry(const RunConfig& config, const MeshSizes& sizes);

/// The pipeline of a full step.
PipelineShape pipeline_shape(const RunConfig& config, const MeshSizes& sizes);
/// The layers of each stage that rank `rank` of pp has; none without pp, where the model is not cut. Throws
/// ConfigError when there are fewer layers than stages.
std::vector<Range> stages_of_rank(const ModelConfig& model, const PipelineShape& pipeline, std::int64_t rank);

/// "dp_shard 2, tp 4"; "one rank" when every axis has one member.
std::string describe(const MeshSizes& sizes);

}  // namespace caravan

// What a run will do and need, computed once from the configuration by running the model's code on shapes
// alone.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "caravan/config/run_config.h"
#include "caravan/train/executor.h"

namespace caravan {

/// Bytes by category, in the order in which they are printed. Where the device is the host (CPUs), both kinds
/// come out of the same memory.
struct RankMemory {
  using Categories = std::vector<std::pair<std::string, std::int64_t>>;
  Categories device;  // where the model computes
  Categories host;    // what is offloaded, and checkpoints on their way to the disk
  std::int64_t total() const { return sum(device) + sum(host); }
  static std::int64_t sum(const Categories& categories);
};

/// One parameter kind: the same cut in every layer.
struct PlannedTensor {
  std::string name;  // "layers.*.attention.wq.weight"
  Shape global;
  Shape local;
  bool is_split = false;
};

struct RunPlan {
  std::int64_t ranks = 1;
  DeviceKind kind = DeviceKind::kCpu;  // that the memory is planned on
  std::string mesh;                    // synchronous: "dp_shard 4"
  std::string pipeline;                // with pp: schedule, micro-batches, layers of each stage
  std::int64_t largest_rank = 0;       // of a mesh: whose memory is given
  std::int64_t parameters = 0;         // of the model
  std::int64_t local_parameters = 0;   // held and trained by one rank
  std::vector<PlannedTensor> tensors;
  RankMemory aggregator;                // rank 0 (the only rank when there is one); of a mesh's the last one
                                        // is what it takes at the end, to write the model
  RankMemory trainer;                   // every other rank
  AttentionShape attention;             // of a rank's largest training pass
  std::int64_t rows_per_rank = 0;       // synchronous: samples of a step and rank
  double step_flops = 0;                // of one full batch on one rank, forward and backward
  std::int64_t bytes_up_per_round = 0;  // slices gathered from the other ranks
  std::int64_t checkpoint_bytes = 0;    // of one checkpoint with the state beside it
  std::int64_t checkpoints_made = 0;
  std::int64_t checkpoints_kept = 0;  // at once: without save_every_round the last one and the next
  bool keeps_every_round = false;
};

/// Plans either mode for `ranks` ranks that compute on devices of this kind. Throws ConfigError when the
/// model cannot be cut so.
RunPlan make_plan(const RunConfig& config, const ModelConfig& model, std::int64_t ranks,
                  DeviceKind kind = DeviceKind::kCpu);

/// "1.50 GiB"
std::string format_bytes(std::int64_t bytes);
/// The plan for people: shapes, parameters, memory by category, work.
std::string describe(const RunPlan& plan, const RunConfig& config, const ModelConfig& model,
                     const std::string& model_source, const std::string& backend);

}  // namespace caravan

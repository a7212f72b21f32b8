#include "caravan/train/inference_layout.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "caravan/parallel/mesh_layout.h"

namespace caravan {
namespace {

/// A single token cannot be divided among ranks, so they do not divide tokens at all.
ParallelSection tensor_parallel(std::int64_t ranks) {
  ParallelSection parallel;
  parallel.dp_shard = 1;
  parallel.tp = ranks;
  parallel.sequence_parallel = false;
  return parallel;
}

Llama::Layout layout_of(const ModelConfig& config, DType dtype, std::int64_t positions,
                        const ParallelSection& parallel, int rank) {
  RunConfig run;
  run.parallel = parallel;
  const MeshSizes sizes = resolve_mesh(parallel, parallel.tp);
  if (const auto problems = mesh_problems(run, config, sizes); !problems.empty()) {
    fail<ConfigError>("{} ranks cannot share this model: {}", parallel.tp, fmt::join(problems, "; "));
  }
  return {.table = parallel.tp == 1 ? ShardTable::kWhole : ShardTable::kSynchronous,
          .at = mesh_coordinates(parallel, config, sizes, rank),
          .dtype = dtype,
          .gradients = Gradients::kNone,
          .positions = positions};
}

/// The group of this rank on the axes that inference has not.
SelfCommunicator& nobody() {
  static SelfCommunicator self;
  return self;
}

}  // namespace

InferenceLayout::InferenceLayout(const ModelConfig& config, DType dtype, std::int64_t positions,
                                 Communicator& tp)
    : config_(config),
      tp_(tp),
      parallel_(tensor_parallel(tp.size())),
      layout_(layout_of(config, dtype, positions, parallel_, tp.rank())),
      ports_(parallel_, config, tp, nobody()),
      kv_width_(config.n_kv_heads / layout_.at.count("kv") * config.head_dim) {}

StepNeeds InferenceLayout::needs(const Executor::Limits& limits) const {
  CountingCommunicator tp(tp_.rank(), tp_.size());
  const MeshPorts ports(parallel_, config_, tp, nobody());
  return Executor::measure(config_, layout_, ports.ports(), limits);
}

std::vector<double> InferenceLayout::whole_rows(const std::vector<double>& columns) const {
  if (tp_.size() == 1) {
    return columns;
  }
  const ShardSpec cut{{{"tp", 0, 1}}, {}};
  const Range mine = cut.resolve({config_.vocab_size}, layout_.at).front();
  const auto rows = static_cast<std::int64_t>(columns.size()) / mine.size();
  std::vector<double> whole(static_cast<std::size_t>(rows * config_.vocab_size), 0.0);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::copy_n(columns.begin() + row * mine.size(), mine.size(),
                whole.begin() + row * config_.vocab_size + mine.begin);
  }
  tp_.all_reduce(TensorView(whole.data(), DType::kFloat64, {rows * config_.vocab_size}));
  return whole;
}

}  // namespace caravan

#include "caravan/train/inference_layout.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/core/error.h"
#include "caravan/parallel/mesh_layout.h"
#include "caravan/train/pipeline_executor.h"

namespace caravan {
namespace {

/// A single token cannot be divided among ranks, so they do not divide tokens at all.
ParallelSection inference_parallel(std::int64_t tp, std::int64_t pp) {
  ParallelSection parallel;
  parallel.dp_shard = 1;
  parallel.tp = tp;
  parallel.pp = pp;
  parallel.sequence_parallel = false;
  return parallel;
}

/// The group of this rank on the axes that inference has not.
SelfCommunicator& nobody() {
  static SelfCommunicator self;
  return self;
}

}  // namespace

MeshSizes inference_mesh(const ModelConfig& model, std::int64_t ranks, std::int64_t pp) {
  if (ranks % pp != 0) {
    fail<ConfigError>("{} rank{} cannot make {} equal stages; start a multiple of {}, or give another --pp",
                      ranks, ranks == 1 ? "" : "s", pp, pp);
  }
  RunConfig run;
  run.parallel = inference_parallel(ranks / pp, pp);
  const MeshSizes sizes = resolve_mesh(run.parallel, ranks);
  if (const auto problems = mesh_problems(run, model, sizes); !problems.empty()) {
    fail<ConfigError>("{} ranks cannot share this model: {}", ranks, fmt::join(problems, "; "));
  }
  return sizes;
}

InferenceLayout::InferenceLayout(const ModelConfig& config, DType dtype, std::int64_t positions,
                                 const InferenceRanks& ranks)
    : config_(config),
      sizes_(inference_mesh(config, ranks.all.size(), ranks.pp)),
      mesh_(ranks.all, sizes_),
      parallel_(inference_parallel(sizes_.tp, sizes_.pp)),
      layout_{.table = ranks.all.size() == 1 ? ShardTable::kWhole : ShardTable::kSynchronous,
              .at = mesh_coordinates(parallel_, config, sizes_, ranks.all.rank()),
              .dtype = dtype,
              .gradients = Gradients::kNone,
              .positions = positions,
              .stages = stages_of_rank(config, pipeline(1), pp().rank())},
      ports_(parallel_, config, tp(), nobody()),
      kv_width_(config.n_kv_heads / layout_.at.count("kv") * config.head_dim) {}

Range InferenceLayout::layers() const {
  return stage_layers(config_, layout_).front();
}

PipelineShape InferenceLayout::pipeline(std::int64_t micro_batches) const {
  return {.schedule = PipelineSchedule::kGpipe, .ranks = sizes_.pp, .micro_batches = micro_batches};
}

StepNeeds InferenceLayout::needs(const Executor::Limits& limits, std::int64_t micro_batches,
                                 DeviceKind kind) const {
  CountingCommunicator counted_tp(tp().rank(), tp().size());
  CountingCommunicator counted_pp(pp().rank(), pp().size());
  const MeshPorts ports(parallel_, config_, counted_tp, nobody());
  if (sizes_.pp == 1) {
    return Executor::measure(config_, layout_, ports.ports(), limits, kind);
  }
  CountingBackend counting(kind);
  Llama model(config_, layout_, counting, ports.ports());
  ReplicatedStore store(model.parameters());
  return PipelineExecutor::measure(model, counting, {limits, pipeline(micro_batches), counted_pp, store});
}

std::vector<double> InferenceLayout::whole_rows(const std::vector<double>& columns) const {
  if (tp().size() == 1) {
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
  tp().all_reduce(TensorView(whole.data(), DType::kFloat64, {rows * config_.vocab_size}));
  return whole;
}

}  // namespace caravan

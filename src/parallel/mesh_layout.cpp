#include "caravan/parallel/mesh_layout.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "caravan/core/error.h"
#include "caravan/parallel/layer_assignment.h"

namespace caravan {
namespace {

constexpr std::int64_t kDefaultBatch = 4;
constexpr std::int64_t kMostRanks = 1 << 20;  // so that products stay far inside 64 bits

std::array<std::pair<const char*, std::int64_t>, kMeshAxisCount> named_sizes(
    const ParallelSection& parallel) {
  return {{{"dp_replicate", parallel.dp_replicate},
           {"dp_shard", parallel.dp_shard},
           {"cp", parallel.cp},
           {"tp", parallel.tp},
           {"pp", parallel.pp}}};
}

/// What is left of `ranks` for the axis that says -1.
std::int64_t rest_of(const ParallelSection& parallel, std::int64_t ranks) {
  const std::int64_t product = smallest_mesh(parallel);
  if (ranks % product != 0) {
    fail<ConfigError>(
        "parallel: dp_replicate {}, dp_shard {}, cp {}, tp {}, pp {}: the given sizes make {}{}, which does "
        "not divide {} rank{}; start a multiple of it, or make an axis smaller",
        parallel.dp_replicate, parallel.dp_shard, parallel.cp, parallel.tp, parallel.pp, product,
        product == kMostRanks ? " or more" : "", ranks, ranks == 1 ? "" : "s");
  }
  return ranks / product;
}

std::int64_t kv_groups(const ModelConfig& model, std::int64_t tp) {
  return std::min(tp, model.n_kv_heads);
}

bool divides_kv_heads(const ModelConfig& model, std::int64_t tp) {
  return model.n_kv_heads % tp == 0 || tp % model.n_kv_heads == 0;
}

/// Every tp that divides the model's heads as they must be.
std::vector<std::int64_t> possible_tp(const ModelConfig& model) {
  std::vector<std::int64_t> possible;
  for (std::int64_t tp = 1; tp <= model.n_heads; ++tp) {
    if (model.n_heads % tp == 0 && divides_kv_heads(model, tp)) {
      possible.push_back(tp);
    }
  }
  return possible;
}

void check_tensor_axis(const ModelConfig& model, std::int64_t tp, std::vector<std::string>& problems) {
  const bool divides_heads = model.n_heads % tp == 0;
  if (!divides_heads) {
    problems.push_back(
        fmt::format("parallel.tp is {}, which does not divide the model's {} heads", tp, model.n_heads));
  }
  if (!divides_kv_heads(model, tp)) {
    problems.push_back(fmt::format(
        "parallel.tp is {}; it must divide the model's {} key/value heads or be a multiple of them", tp,
        model.n_kv_heads));
  }
  if (!divides_heads || !divides_kv_heads(model, tp)) {
    problems.back() += fmt::format("; possible here: {}", fmt::join(possible_tp(model), ", "));
  }
  if (model.intermediate_size < tp || model.vocab_size < tp) {
    problems.push_back(fmt::format(
        "parallel.tp is {}: more ranks than the model has MLP rows ({}) or tokens ({}); use at "
        "most {}",
        tp, model.intermediate_size, model.vocab_size, std::min(model.intermediate_size, model.vocab_size)));
  }
}

void check_pipeline_axis(const ParallelSection& parallel, const ModelConfig& model, const MeshSizes& sizes,
                         std::vector<std::string>& problems) {
  const std::int64_t per_rank = parallel.stages_per_rank;
  if (sizes.pp == 1 && per_rank > 1) {
    problems.push_back(
        fmt::format("parallel.stages_per_rank is {}, but parallel.pp is 1: nothing is cut into stages; set "
                    "parallel.pp to "
                    "2 or more",
                    per_rank));
  } else if (sizes.pp * per_rank > model.n_layers) {
    problems.push_back(fmt::format(
        "parallel.pp is {}{}: {} stages, but the model has only {} layer{}; use at most {} stages", sizes.pp,
        per_rank > 1 ? fmt::format(" and parallel.stages_per_rank {}", per_rank) : "", sizes.pp * per_rank,
        model.n_layers, model.n_layers == 1 ? "" : "s", model.n_layers));
  }
}

/// The largest divisor of `count` that is not above `most`; 1 at least.
std::int64_t largest_divisor(std::int64_t count, std::int64_t most) {
  std::int64_t divisor = std::clamp<std::int64_t>(most, 1, std::max<std::int64_t>(count, 1));
  while (count % divisor != 0) {
    --divisor;
  }
  return divisor;
}

/// The most samples of `rows` at a time that make equal micro-batches, at least `wanted` of them.
std::int64_t largest_micro_batch(std::int64_t rows, std::int64_t wanted) {
  return largest_divisor(rows, rows / wanted);
}

void check_batch(const RunConfig& config, const MeshSizes& sizes, std::vector<std::string>& problems) {
  const BatchGeometry batch = batch_geometry(config, sizes);
  if (batch.batch_size % batch.data_ranks != 0) {
    problems.push_back(fmt::format(
        "training.batch_size is {}, which dp_replicate · dp_shard = {} does not divide; use {}",
        batch.batch_size, batch.data_ranks, (batch.batch_size / batch.data_ranks + 1) * batch.data_ranks));
    return;
  }
  if (batch.rows_per_rank % batch.micro_batch != 0) {
    problems.push_back(fmt::format(
        "training.micro_batch is {}, which does not divide the {} sample{} of a rank's step; use {}",
        batch.micro_batch, batch.rows_per_rank, batch.rows_per_rank == 1 ? "" : "s",
        largest_divisor(batch.rows_per_rank, batch.micro_batch)));
  }
}

/// What ranks on this mesh cannot record.
void check_graphs(const RunConfig& config, const MeshSizes& sizes, std::vector<std::string>& problems) {
  const auto refuse = [&](const std::string& what) {
    problems.push_back(
        fmt::format("cuda_graphs is always, which {} cannot be; set cuda_graphs to auto", what));
  };
  if (config.cuda_graphs != GraphChoice::kAlways) {
    return;
  }
  if (sizes.pp > 1) {
    refuse(fmt::format("the stages of parallel.pp {}", sizes.pp));
  }
  if (sizes.cp > 1 && config.parallel.context == ContextExchange::kRing) {
    refuse(fmt::format("the ring of parallel.cp {} (parallel.context: ring)", sizes.cp));
  }
}

}  // namespace

std::int64_t smallest_mesh(const ParallelSection& parallel) {
  std::int64_t product = 1;
  for (const auto& [name, size] : named_sizes(parallel)) {
    product = std::min(kMostRanks, product * std::max<std::int64_t>(size, 1));
  }
  return product;
}

MeshSizes resolve_mesh(const ParallelSection& parallel, std::int64_t ranks) {
  std::string open;
  for (const auto& [name, size] : named_sizes(parallel)) {
    if (size == 0) {
      fail<ConfigError>("parallel.{} is 0; every axis has at least one member", name);
    }
    if (size == -1) {
      if (!open.empty()) {
        fail<ConfigError>("parallel.{} and parallel.{} are both -1; only one axis can take the rest", open,
                          name);
      }
      open = name;
    }
  }
  const std::int64_t rest = rest_of(parallel, ranks);
  if (open.empty() && rest != 1) {
    fail<ConfigError>(
        "parallel: the product of the axes is {}, but {} ranks were started; run mpirun -n {}, or set one "
        "axis "
        "to -1 for the rest",
        ranks / rest, ranks, ranks / rest);
  }
  const auto size = [&](std::int64_t given) { return static_cast<int>(given == -1 ? rest : given); };
  return {.dp_replicate = size(parallel.dp_replicate),
          .dp_shard = size(parallel.dp_shard),
          .cp = size(parallel.cp),
          .tp = size(parallel.tp),
          .pp = size(parallel.pp)};
}

std::vector<std::string> mesh_problems(const RunConfig& config, const ModelConfig& model,
                                       const MeshSizes& sizes) {
  std::vector<std::string> problems;
  check_pipeline_axis(config.parallel, model, sizes, problems);
  check_tensor_axis(model, sizes.tp, problems);
  check_batch(config, sizes, problems);
  check_graphs(config, sizes, problems);
  return problems;
}

bool cuts_sequence(const ParallelSection& parallel, const MeshSizes& sizes) {
  return parallel.sequence_parallel && sizes.tp > 1;
}

bool divides_copies(const ParallelSection& parallel, const MeshSizes& sizes) {
  return sizes.dp_shard > 1 || parallel.cpu_offload != CpuOffload::kNone;
}

Coordinates mesh_coordinates(const ParallelSection& parallel, const ModelConfig& model,
                             const MeshSizes& sizes, int rank) {
  const auto at = [&](MeshAxis axis) { return std::int64_t{sizes.coordinate(axis, rank)}; };
  std::vector<AxisCoordinate> axes;
  for (const MeshAxis axis :
       {MeshAxis::kDpReplicate, MeshAxis::kPp, MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp}) {
    axes.push_back({std::string(mesh_axis_name(axis)), at(axis), sizes[axis]});
  }
  const std::int64_t groups = kv_groups(model, sizes.tp);
  const std::int64_t copies = sizes.tp / groups;
  axes.push_back({"kv", at(MeshAxis::kTp) / copies, groups});
  axes.push_back({"kv_copies", at(MeshAxis::kTp) % copies, copies});
  if (cuts_sequence(parallel, sizes)) {
    axes.push_back({"sp", at(MeshAxis::kTp), sizes.tp});
  }
  axes.push_back({"fsdp", at(MeshAxis::kDpShard) * sizes.cp + at(MeshAxis::kCp), sizes.dp_shard * sizes.cp});
  const bool has_cp_copies = !divides_copies(parallel, sizes);
  axes.push_back({"cp_copies", has_cp_copies ? at(MeshAxis::kCp) : 0, has_cp_copies ? sizes.cp : 1});
  const std::int64_t stage = at(MeshAxis::kPp);
  axes.push_back({"table_copies", stage > 0 && stage + 1 == sizes.pp ? 1 : 0, std::min(sizes.pp, 2)});
  return Coordinates(std::move(axes));
}

BatchGeometry batch_geometry(const RunConfig& config, const MeshSizes& sizes) {
  BatchGeometry batch;
  batch.data_ranks = std::int64_t{sizes.dp_replicate} * sizes.dp_shard;
  batch.batch_size = config.training.batch_size_per_rank
                         ? *config.training.batch_size_per_rank * batch.data_ranks
                         : config.training.batch_size.value_or(kDefaultBatch);
  batch.rows_per_rank = batch.batch_size / batch.data_ranks;
  batch.micro_batch =
      config.training.micro_batch.value_or(largest_micro_batch(batch.rows_per_rank, sizes.pp));
  batch.context_ranks = sizes.cp;
  // Zig-zag gives every rank two pieces of a row; cutting the stream needs a multiple of tp of each part.
  batch.token_multiple = (sizes.cp > 1 ? std::int64_t{2} * sizes.cp : 1) *
                         (cuts_sequence(config.parallel, sizes) ? sizes.tp : 1);
  return batch;
}

PipelineShape pipeline_shape(const RunConfig& config, const MeshSizes& sizes) {
  const BatchGeometry batch = batch_geometry(config, sizes);
  return {.schedule = config.parallel.pipeline_schedule,
          .ranks = sizes.pp,
          .chunks = static_cast<int>(config.parallel.stages_per_rank),
          .micro_batches = std::max<std::int64_t>(1, batch.rows_per_rank / batch.micro_batch)};
}

std::vector<Range> stages_of_rank(const ModelConfig& model, const PipelineShape& pipeline,
                                  std::int64_t rank) {
  std::vector<Range> mine;
  if (pipeline.ranks > 1) {
    const std::vector<Range> all = assign_layers(model.n_layers, pipeline.stages(), end_weights(model));
    for (int stage = static_cast<int>(rank); stage < pipeline.stages(); stage += pipeline.ranks) {
      mine.push_back(all[static_cast<std::size_t>(stage)]);
    }
  }
  return mine;
}

std::string describe(const MeshSizes& sizes) {
  std::string text;
  for (const MeshAxis axis :
       {MeshAxis::kDpReplicate, MeshAxis::kDpShard, MeshAxis::kCp, MeshAxis::kTp, MeshAxis::kPp}) {
    if (sizes[axis] > 1) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", mesh_axis_name(axis), sizes[axis]);
    }
  }
  return text.empty() ? "one rank" : text;
}

}  // namespace caravan

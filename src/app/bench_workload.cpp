#include "bench_workload.h"

#include <fmt/format.h>

#include "caravan/core/error.h"
#include "caravan/parallel/mesh_layout.h"

namespace caravan::app {

std::string division_name(Division division) {
  switch (division) {
    case Division::kTp:
      return "TP";
    case Division::kTpSp:
      return "TP+SP";
    case Division::kDdp:
      return "DDP";
    case Division::kFsdp:
      return "FSDP";
    case Division::kCp:
      return "CP";
    case Division::kPp:
      return "PP";
  }
  fail<InternalError>("no division {}", static_cast<int>(division));
}

ParallelSection mesh_of(Division division, int ranks) {
  switch (division) {
    case Division::kTp:
      return {.dp_shard = 1, .tp = ranks, .sequence_parallel = false};
    case Division::kTpSp:
      return {.dp_shard = 1, .tp = ranks};
    case Division::kDdp:
      return {.dp_replicate = ranks, .dp_shard = 1};
    case Division::kFsdp:
      return {.dp_shard = ranks};
    case Division::kCp:
      return {.dp_shard = 1, .cp = ranks};
    case Division::kPp:
      return {.dp_shard = 1, .pp = ranks};
  }
  fail<InternalError>("no division {}", static_cast<int>(division));
}

std::string division_problem(const WorkloadSize& size, Division division, int ranks) {
  if (size.kind == WorkloadKind::kBlock) {
    const MeshSizes sizes = resolve_mesh(mesh_of(division, ranks), ranks);
    const auto problems = mesh_problems(block_config(size, division, ranks), block_model(size), sizes);
    return problems.empty() ? "" : problems.front();
  }
  if (division == Division::kCp) {
    return "without attention, context parallelism is DDP";
  }
  if (division == Division::kPp) {
    return "two linear layers make no stages";
  }
  if (size.hidden % ranks != 0 || (division != Division::kTp && size.batch % ranks != 0)) {
    return fmt::format("{} ranks do not divide hidden {} and batch {}", ranks, size.hidden, size.batch);
  }
  return "";
}

double waiting_share(const WorkloadSize& size, Division division, int ranks) {
  if (division != Division::kPp) {
    return 0.0;
  }
  const RunConfig config = block_config(size, division, ranks);
  const PipelineShape pipeline = pipeline_shape(config, resolve_mesh(config.parallel, ranks));
  return static_cast<double>(ranks - 1) / static_cast<double>(pipeline.micro_batches);
}

std::unique_ptr<Workload> make_workload(const WorkloadSize& size, Division division, Communicator& ranks,
                                        Backend& backend) {
  return size.kind == WorkloadKind::kLinear ? make_linear_workload(size, division, ranks, backend)
                                            : make_block_workload(size, division, ranks, backend);
}

}  // namespace caravan::app

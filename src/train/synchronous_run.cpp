#include "caravan/train/synchronous_run.h"

#include <fmt/ranges.h>

#include "caravan/comm/counting_communicator.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

/// Copies of the weights are divided; context ranks divide them too, as they hold the same.
bool is_sharded(const MeshSizes& sizes) {
  return sizes.dp_shard > 1;
}

std::unique_ptr<TrainingStore> make_store(ParameterSet& parameters, const RunConfig& config,
                                          const SynchronousLayout& layout, const MeshGroups& groups,
                                          Backend& backend) {
  if (!is_sharded(layout.sizes)) {
    return std::make_unique<DataParallelStore>(parameters, groups.data(), layout.at, groups.partial_groups());
  }
  return std::make_unique<ShardedStore>(
      parameters,
      ShardedStore::Options{.zero_stage = config.parallel.zero_stage,
                            .reshard_after_forward = config.parallel.reshard_after_forward},
      ShardedStore::Ranks{.fsdp = groups.fsdp(),
                          .replicate = groups.axis(MeshAxis::kDpReplicate),
                          .partial = groups.partial_groups()},
      layout.at, config.dtype, backend);
}

StepNeeds measure(const RunConfig& config, const ModelConfig& model, const SynchronousLayout& layout) {
  CountingCommunicator tp(static_cast<int>(layout.at.index("tp")), layout.sizes.tp);
  CountingCommunicator cp(static_cast<int>(layout.at.index("cp")), layout.sizes.cp);
  const MeshPorts ports(config.parallel, model, tp, cp);
  Llama::Layout in_place = layout.model;  // shapes cost nothing; the store's memory is its own
  in_place.values = Values::kAllocated;
  in_place.gradients = Gradients::kAllocated;
  return Executor::measure(model, in_place, ports.ports(), layout.limits);
}

}  // namespace

SynchronousLayout::SynchronousLayout(const RunConfig& config, const ModelConfig& model_config,
                                     const MeshSizes& mesh_sizes, int rank)
    : sizes(mesh_sizes),
      at(mesh_coordinates(config.parallel, model_config, mesh_sizes, rank)),
      geometry(batch_geometry(config, mesh_sizes)),
      model{.table = ShardTable::kSynchronous,
            .at = at,
            .dtype = config.dtype,
            .gradients = is_sharded(mesh_sizes) ? ShardedStore::gradients(config.parallel.zero_stage)
                                                : Gradients::kAllocated,
            .values = is_sharded(mesh_sizes) ? ShardedStore::values(config.parallel.zero_stage)
                                             : Values::kAllocated,
            .positions = config.data.max_seq_len},
      limits{.batch = geometry.micro_batch,
             .seq_len = geometry.local_seq_len(config.data.max_seq_len - 1),
             .pass = Pass::kForwardBackward,
             .policy = save_policy(config.training.recompute)} {
  if (const auto problems = mesh_problems(config, model_config, sizes); !problems.empty()) {
    fail<ConfigError>("this run cannot be laid out on the mesh ({}): {}", describe(sizes),
                      fmt::join(problems, "; "));
  }
}

SynchronousRun::SynchronousRun(const Setup& setup)
    : world_(setup.world),
      pad_id_(setup.pad_id),
      layout_(setup.config, setup.model, resolve_mesh(setup.config.parallel, setup.world.size()),
              setup.world.rank()),
      place_(batch_place(layout_.at)),
      groups_(setup.world, layout_.sizes, layout_.at),
      ports_(setup.config.parallel, setup.model, groups_.axis(MeshAxis::kTp), groups_.axis(MeshAxis::kCp)),
      model_(std::make_unique<Llama>(setup.model, layout_.model, setup.backend, ports_.ports())),
      store_(make_store(model_->parameters(), setup.config, layout_, groups_, setup.backend)) {
  trainer_ = std::make_unique<Trainer>(*model_, setup.backend,
                                       Trainer::Options{.limits = layout_.limits,
                                                        .optimizer = adamw_options(setup.config.optimizer),
                                                        .clip_norm = setup.config.training.clip_norm},
                                       Trainer::Together{.world = world_,
                                                         .store = *store_,
                                                         .needs = measure(setup.config, setup.model, layout_),
                                                         .counts_loss = layout_.at.index("tp") == 0});
}

void SynchronousRun::load(
    const std::function<void(const Context&, const std::vector<ParameterShard>&)>& fill) {
  Context ctx = trainer_->executor().context();
  fill(ctx, store_->shards());
  store_->publish_values(ctx);
}

StepResult SynchronousRun::step(const Batch& batch, double lr) {
  return trainer_->step(parts_of(batch), batch.valid_tokens, lr);
}

double SynchronousRun::gradients(const Batch& batch) {
  return trainer_->gradients(parts_of(batch), batch.valid_tokens);
}

double SynchronousRun::loss_sum(const Batch& batch) {
  double sum = 0.0;
  for (const Batch& part : parts_of(batch)) {
    sum += trainer_->executor().loss(part);
  }
  return world_.all_reduce_value(layout_.at.index("tp") == 0 ? sum : 0.0);
}

}  // namespace caravan

#include "caravan/train/synchronous_run.h"

#include <fmt/ranges.h>

#include "caravan/comm/counting_communicator.h"
#include "caravan/core/error.h"
#include "caravan/ops/dropout.h"
#include "caravan/train/pipeline_executor.h"

namespace caravan {
namespace {

constexpr double kMebibyte = 1 << 20;
constexpr double kMostBucketBytes = 1e18;  // more than any memory, less than an int64 can say

/// `sizes`, when model and batch can have them.
const MeshSizes& possible(const RunConfig& config, const ModelConfig& model, const MeshSizes& sizes) {
  if (const auto problems = mesh_problems(config, model, sizes); !problems.empty()) {
    fail<ConfigError>("this run cannot be laid out on the mesh ({}): {}", describe(sizes),
                      fmt::join(problems, "; "));
  }
  return sizes;
}

/// What computes in host memory.
Backend& host_of(const SynchronousRun::Setup& setup) {
  Backend& host = setup.host != nullptr ? *setup.host : setup.backend;
  CARAVAN_CHECK(
      setup.config.parallel.cpu_offload == CpuOffload::kNone || host.device().kind != DeviceKind::kCuda,
      "a run on a device needs a host backend for what is offloaded");
  return host;
}

struct StoreRanks {
  Communicator& data;
  Communicator& fsdp;
  Communicator& replicate;
  std::vector<PartialGroup> partial;
};

std::unique_ptr<TrainingStore> make_store(ParameterSet& parameters, const RunConfig& config,
                                          const SynchronousLayout& layout, const StoreRanks& ranks,
                                          const ShardedStore::Backends& backends) {
  if (!divides_copies(config.parallel, layout.sizes)) {
    const double bytes = std::min(config.parallel.ddp_bucket_mib * kMebibyte, kMostBucketBytes);
    return std::make_unique<DataParallelStore>(parameters, ranks.data, layout.at, ranks.partial,
                                               static_cast<std::int64_t>(bytes));
  }
  return std::make_unique<ShardedStore>(
      parameters,
      ShardedStore::Options{.zero_stage = config.parallel.zero_stage,
                            .reshard_after_forward = config.parallel.reshard_after_forward,
                            .offload = config.parallel.cpu_offload},
      ShardedStore::Ranks{.fsdp = ranks.fsdp, .replicate = ranks.replicate, .partial = ranks.partial},
      layout.at, config.dtype, backends);
}

}  // namespace

SynchronousLayout::SynchronousLayout(const RunConfig& config, const ModelConfig& model_config,
                                     const MeshSizes& mesh_sizes, int rank)
    : sizes(possible(config, model_config, mesh_sizes)),
      at(mesh_coordinates(config.parallel, model_config, mesh_sizes, rank)),
      geometry(batch_geometry(config, mesh_sizes)),
      pipeline(pipeline_shape(config, mesh_sizes)),
      model{.table = ShardTable::kSynchronous,
            .at = at,
            .dtype = config.dtype,
            .gradients = divides_copies(config.parallel, mesh_sizes)
                             ? ShardedStore::gradients(config.parallel.zero_stage)
                             : Gradients::kAllocated,
            .values = divides_copies(config.parallel, mesh_sizes)
                          ? ShardedStore::values(config.parallel.zero_stage)
                          : Values::kAllocated,
            .positions = config.data.max_seq_len,
            .stages = stages_of_rank(model_config, pipeline, at.index("pp"))},
      limits{.batch = geometry.micro_batch,
             .seq_len = geometry.local_seq_len(config.data.max_seq_len - 1),
             .pass = Pass::kForwardBackward,
             .policy = save_policy(config.training.recompute),
             .dropout = config.training.dropout,
             .context = {.ranks = mesh_sizes.cp, .exchange = config.parallel.context},
             .records = config.cuda_graphs != GraphChoice::kNever} {}

SynchronousNeeds measure_synchronous(const RunConfig& config, const ModelConfig& model_config,
                                     const SynchronousLayout& layout, DeviceKind kind) {
  const auto counting_group = [&](const char* axis) {
    return CountingCommunicator(static_cast<int>(layout.at.index(axis)),
                                static_cast<int>(layout.at.count(axis)));
  };
  CountingCommunicator pp = counting_group("pp");
  CountingCommunicator tp = counting_group("tp");
  CountingCommunicator cp = counting_group("cp");
  CountingCommunicator fsdp = counting_group("fsdp");
  CountingCommunicator replicate = counting_group("dp_replicate");
  const auto shards = static_cast<int>(layout.at.count("fsdp"));
  CountingCommunicator data(
      static_cast<int>(layout.at.index("dp_replicate")) * shards + static_cast<int>(layout.at.index("fsdp")),
      layout.sizes.dp_replicate * shards);
  const MeshPorts ports(config.parallel, model_config, tp, cp);
  CountingBackend counting(kind);
  Llama model(model_config, layout.model, counting, ports.ports());
  const auto store =
      make_store(model.parameters(), config, layout, {data, fsdp, replicate, {}}, {counting, counting});
  SynchronousNeeds needs;
  needs.step = layout.is_pipelined()
                   ? PipelineExecutor::measure(model, counting, {layout.limits, layout.pipeline, pp, *store})
                   : Executor::measure(model, counting, layout.limits, store.get());
  needs.value_bytes = model.parameters().value_bytes();
  needs.gradient_bytes = model.parameters().grad_bytes();
  needs.rope_bytes = model.rope_bytes();
  for (const ParameterShard& shard : store->shards()) {
    needs.shard_elements += shard.value.numel();
  }
  if (const auto* sharded = dynamic_cast<const ShardedStore*>(store.get())) {
    needs.store_bytes = sharded->device_bytes();
    needs.host_store_bytes = sharded->host_bytes();
    needs.slots = sharded->slots();
  }
  return needs;
}

SynchronousRun::SynchronousRun(const Setup& setup)
    : world_(setup.world),
      pad_id_(setup.pad_id),
      seed_(static_cast<std::uint64_t>(setup.config.seed)),
      layout_(setup.config, setup.model, resolve_mesh(setup.config.parallel, setup.world.size()),
              setup.world.rank()),
      place_(batch_place(layout_.at)),
      groups_(setup.world, layout_.sizes, layout_.at),
      ports_(setup.config.parallel, setup.model, groups_.axis(MeshAxis::kTp), groups_.axis(MeshAxis::kCp)),
      model_(std::make_unique<Llama>(setup.model, layout_.model, setup.backend, ports_.ports())),
      store_(make_store(
          model_->parameters(), setup.config, layout_,
          {groups_.data(), groups_.fsdp(), groups_.axis(MeshAxis::kDpReplicate), groups_.partial_groups()},
          {setup.backend, host_of(setup)})) {
  const SynchronousNeeds measured =
      measure_synchronous(setup.config, setup.model, layout_, setup.backend.kind());
  const StepNeeds& needs = measured.step;
  if (auto* sharded = dynamic_cast<ShardedStore*>(store_.get())) {
    sharded->reserve(measured.slots);
  }
  const bool can_record = can_record_steps(setup.config, setup.backend);
  std::unique_ptr<StepExecutor> executor;
  if (layout_.is_pipelined()) {
    executor = std::make_unique<PipelineExecutor>(
        *model_, setup.backend,
        PipelineExecutor::Setup{layout_.limits, layout_.pipeline, groups_.axis(MeshAxis::kPp), *store_,
                                &groups_},
        needs);
  } else {
    executor = std::make_unique<Executor>(*model_, setup.backend, layout_.limits, needs,
                                          Executor::Surroundings{.store = store_.get(),
                                                                 .background = &groups_,
                                                                 .can_record = can_record,
                                                                 .recorded_groups = exchanging_groups()});
  }
  const bool is_offloaded = setup.config.parallel.cpu_offload != CpuOffload::kNone;
  Backend* const updater = is_offloaded ? &host_of(setup) : nullptr;
  trainer_ = std::make_unique<Trainer>(
      *model_, setup.backend,
      Trainer::Options{.limits = layout_.limits, .optimizer = adamw_options(setup.config)},
      Trainer::Together{.world = world_,
                        .store = *store_,
                        .executor = std::move(executor),
                        .recorded_groups = exchanging_groups(),
                        .updater = updater,
                        .counts_loss = layout_.at.index("tp") == 0});
}

/// The groups of several ranks that a step exchanges in.
std::vector<Communicator*> SynchronousRun::exchanging_groups() {
  std::vector<Communicator*> groups = groups_.all();
  groups.push_back(&world_);
  std::erase_if(groups, [](const Communicator* group) { return group->size() == 1; });
  return groups;
}

/// The same on all ranks: they record together or not at all.
bool SynchronousRun::can_record_steps(const RunConfig& config, const Backend& backend) {
  if (world_.size() == 1) {
    return !divides_copies(config.parallel, layout_.sizes);
  }
  if (config.cuda_graphs != GraphChoice::kAlways) {
    return false;
  }
  for (const Communicator* group : exchanging_groups()) {
    CARAVAN_CHECK(group->can_be_recorded(), "cuda_graphs is always, and group {} cannot be recorded",
                  group->name());
  }
  return world_.all_reduce_value(std::int64_t{backend.can_record() ? 1 : 0}, ReduceOp::kMin) == 1;
}

void SynchronousRun::load(
    const std::function<void(const Context&, const std::vector<ParameterShard>&)>& fill) {
  Context ctx = trainer_->update_context();
  fill(ctx, store_->shards());
  trainer_->optimizer().forget_masters();
  store_->publish_values(ctx);
}

/// The masks of the step that comes next.
void SynchronousRun::choose_masks() {
  trainer_->steps_executor().context().scalars.dropout_key = dropout_key(seed_, 0, trainer_->steps() + 1);
}

StepResult SynchronousRun::step(const Batch& batch, double lr) {
  choose_masks();
  return trainer_->step(parts_of(batch), batch.valid_tokens, lr);
}

double SynchronousRun::gradients(const Batch& batch) {
  choose_masks();
  return trainer_->gradients(parts_of(batch), batch.valid_tokens);
}

Traffic SynchronousRun::traffic() const {
  Traffic sum = groups_.traffic();
  return sum += world_.traffic();
}

double SynchronousRun::loss_sum(const Batch& batch) {
  const double sum = trainer_->steps_executor().loss_sum(parts_of(batch));
  return world_.all_reduce_value(layout_.at.index("tp") == 0 ? sum : 0.0);
}

}  // namespace caravan

#include "caravan/federated/run_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "caravan/config/run_config_fields.h"
#include "caravan/core/error.h"
#include "caravan/federated/federated_run.h"
#include "caravan/parallel/layer_assignment.h"
#include "caravan/train/gather_model.h"
#include "caravan/train/synchronous_run.h"

namespace caravan {
namespace {

std::int64_t item_bytes(DType dtype) {
  return static_cast<std::int64_t>(dtype_bytes(dtype));
}

/// Training state of one model part: weights, gradients, AdamW, activations, scratch.
RankMemory training_memory(const ModelConfig& model, const Llama::Layout& layout,
                           const Executor::Limits& limits, const Ports& ports, DeviceKind kind,
                           StepNeeds& needs) {
  CountingBackend counting;
  const Llama part(model, layout, counting, ports);
  needs = Executor::measure(model, layout, ports, limits, kind);
  RankMemory memory;
  memory.device = {
      {"weights", part.parameters().value_bytes()},
      {"gradients", part.parameters().grad_bytes()},
      {"AdamW moments", Adamw::state_bytes(part.parameters().numel(), layout.dtype)},
      {"activations", needs.saved_bytes},
      {"scratch", needs.scratch_bytes},
      {"rotary tables and batch", part.rope_bytes() + DeviceBatch(counting, limits.room()).bytes()},
  };
  return memory;
}

/// The same of one rank of a mesh.
RankMemory mesh_memory(const SynchronousLayout& layout, const SynchronousNeeds& needs, bool has_masters) {
  CountingBackend counting;
  RankMemory memory;
  memory.device = {
      {"weights in place", needs.value_bytes},
      {"gradients in place", needs.gradient_bytes},
      {"shards and gathered units", needs.store_bytes},
      {"activations", needs.step.saved_bytes},
      {"scratch", needs.step.scratch_bytes},
      {"rotary tables and batch",
       needs.rope_bytes + layout.batches_held() * DeviceBatch(counting, layout.limits.room()).bytes()},
  };
  if (layout.is_pipelined()) {
    memory.device.emplace_back("messages between stages", needs.step.message_bytes);
  }
  const std::int64_t moments = Adamw::state_bytes(needs.shard_elements, layout.model.dtype, has_masters);
  if (needs.host_store_bytes > 0) {
    memory.host = {{"offloaded shards, staging", needs.host_store_bytes}, {"AdamW moments", moments}};
  } else {
    memory.device.insert(memory.device.begin() + 3, {"AdamW moments", moments});
  }
  return memory;
}

/// What the aggregator holds on top of its own slice.
void add_aggregator(RankMemory& memory, const RunConfig& config, const ModelConfig& model, const Ports& ports,
                    DeviceKind kind, bool has_own_copy) {
  CountingBackend counting;
  const Llama::Layout layout = FederatedRun::full_layout(config);
  const Llama full(model, layout, counting, ports);
  const StepNeeds eval = Executor::measure(model, layout, ports, FederatedRun::eval_limits(config), kind);
  const DType exact = accumulation_dtype(config.dtype);
  const std::int64_t exact_bytes = full.parameters().numel() * item_bytes(exact);
  if (has_own_copy) {
    memory.device.emplace_back("full model (aggregator)", full.parameters().value_bytes());
    if (exact != config.dtype) {
      memory.device.emplace_back("its float32 masters", exact_bytes);
    }
  }
  memory.device.emplace_back("evaluation scratch", eval.scratch_bytes);
  if (has_own_copy) {
    std::int64_t staged = 0;
    for (const ParameterSpec& spec : parameter_table(model, ShardTable::kFederated)) {
      if (spec.shard.is_split("slot")) {
        staged = std::max(staged, spec.shape.numel() * item_bytes(exact));
      }
    }
    const bool is_plain = Aggregation(config.federated).takes_values_as_they_are();
    memory.device.emplace_back("staging of one tensor", is_plain ? staged : 2 * staged);
  }
  if (config.federated.outer.momentum != 0.0) {
    memory.device.emplace_back("outer momentum", exact_bytes);
  }
}

/// One line per kind of tensor: those of layer 0 stand for all layers.
std::vector<PlannedTensor> planned_tensors(const ModelConfig& model, ShardTable table,
                                           const Coordinates& at) {
  std::vector<PlannedTensor> tensors;
  for (const ParameterSpec& spec : parameter_table(model, table)) {
    if (spec.name.starts_with("layers.") && !spec.name.starts_with("layers.0.")) {
      continue;
    }
    std::string name = spec.name;
    if (name.starts_with("layers.0.")) {
      name.replace(7, 1, "*");
    }
    tensors.push_back({std::move(name), spec.shape, region_shape(spec.shard.resolve(spec.shape, at)),
                       !spec.shard.cuts.empty()});
  }
  return tensors;
}

/// "1f1b, 4 micro-batches; layers of the stages: 5 5 5 1"
std::string describe_pipeline(const RunConfig& config, const ModelConfig& model, const PipelineShape& shape) {
  std::string text =
      fmt::format("{}, {} micro-batches; layers of the stages:", enum_name(config.parallel.pipeline_schedule),
                  shape.micro_batches);
  for (const Range& layers : assign_layers(model.n_layers, shape.stages(), end_weights(model))) {
    text += fmt::format(" {}", layers.size());
  }
  return text;
}

/// Plans a rank of every place on the axis pp, since stages differ; the plan is that of the largest.
void plan_mesh(RunPlan& plan, const RunConfig& config, const ModelConfig& model, StepNeeds& needs) {
  const MeshSizes sizes = resolve_mesh(config.parallel, plan.ranks);
  plan.mesh = describe(sizes);
  for (int stage = 0; stage < sizes.pp; ++stage) {
    const int rank = sizes.first_rank(MeshAxis::kPp, stage);
    const SynchronousLayout layout(config, model, sizes, rank);
    const SynchronousNeeds needed = measure_synchronous(config, model, layout, plan.kind);
    RankMemory memory = mesh_memory(layout, needed, config.optimizer.master_weights);
    if (config.checkpoint.is_async) {
      memory.host.emplace_back("checkpoint to be written",
                               3 * needed.shard_elements * item_bytes(accumulation_dtype(config.dtype)));
    }
    if (stage == 0) {
      plan.tensors = planned_tensors(model, ShardTable::kSynchronous, layout.at);
      plan.rows_per_rank = layout.geometry.rows_per_rank;
      plan.pipeline = layout.is_pipelined() ? describe_pipeline(config, model, layout.pipeline) : "";
    } else if (memory.total() <= plan.aggregator.total()) {
      continue;
    }
    needs = needed.step;
    plan.largest_rank = rank;
    plan.local_parameters = needed.shard_elements;
    plan.aggregator = memory;
  }
  plan.trainer = plan.aggregator;
  if (plan.ranks > 1) {
    const Coordinates at = mesh_coordinates(config.parallel, model, sizes, 0);
    plan.aggregator.host.emplace_back(
        "a whole tensor",
        ModelGather::root_bytes(parameter_table(model, ShardTable::kSynchronous), at, config.dtype));
  }
}

std::string describe_memory(const RankMemory& memory, const char* who) {
  std::string text;
  const auto list = [&](const char* what, const RankMemory::Categories& categories) {
    text += fmt::format("  {} of {}: {}\n", what, who, format_bytes(RankMemory::sum(categories)));
    for (const auto& [name, bytes] : categories) {
      text += fmt::format("    {:<26} {:>12}\n", name, format_bytes(bytes));
    }
  };
  list(memory.host.empty() ? "memory" : "device memory", memory.device);
  if (!memory.host.empty()) {
    list("host memory", memory.host);
  }
  return text;
}

/// What changes from step to step, in words.
std::string describe_schedule(const OptimizerSection& optimizer) {
  const ScheduleSection& schedule = optimizer.schedule;
  std::string text = fmt::format("{}, {}", optimizer.lr, enum_name(schedule.name));
  if (schedule.warmup_steps > 0) {
    text += fmt::format(" after {} warm-up steps", schedule.warmup_steps);
  }
  if (schedule.name != LrSchedule::kConstant) {
    text += fmt::format(", down to {}", schedule.final_factor * optimizer.lr);
  }
  if (schedule.name == LrSchedule::kWsd) {
    text += schedule.decay_steps ? fmt::format(" in the last {} steps", *schedule.decay_steps)
                                 : " in the last tenth of the steps";
  }
  return text;
}

std::int64_t split_elements(const ModelConfig& model, const Coordinates& at) {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : parameter_table(model, ShardTable::kFederated)) {
    if (spec.shard.is_split("slot")) {
      count += region_shape(spec.shard.resolve(spec.shape, at)).numel();
    }
  }
  return count;
}

/// What save_model and save_round_state write; the files' own headers are small.
void plan_checkpoints(RunPlan& plan, const RunConfig& config) {
  const std::int64_t model = plan.parameters * item_bytes(config.dtype);
  const FederatedSection& federated = config.federated;
  plan.checkpoint_bytes = model;
  plan.checkpoints_made = 1;
  plan.checkpoints_kept = 1;
  if (config.mode == TrainMode::kSynchronous) {
    // Parameters (of a 16-bit model its masters) and two moments; the model of the end, at most a third of
    // one, is not counted.
    const CheckpointSection& checkpoint = config.checkpoint;
    const std::int64_t exact = item_bytes(accumulation_dtype(config.dtype));
    const std::int64_t values = config.optimizer.master_weights ? exact : item_bytes(config.dtype);
    plan.checkpoint_bytes = plan.parameters * (values + 2 * exact);
    const std::int64_t steps = config.training.steps.value_or(std::numeric_limits<std::int64_t>::max());
    plan.checkpoints_made = checkpoint.every > 0 ? 1 + (steps - 1) / checkpoint.every : 1;
    plan.checkpoints_kept =
        std::min(checkpoint.keep + 1, plan.checkpoints_made);  // the next one is written first
  }
  if (config.mode == TrainMode::kFederated) {
    const DType exact = accumulation_dtype(config.dtype);
    if (federated.optimizer_state == OptimizerState::kKeep) {
      plan.checkpoint_bytes += 2 * plan.ranks * plan.local_parameters * item_bytes(exact);
    }
    const std::int64_t exact_model = plan.parameters * item_bytes(exact);
    plan.checkpoint_bytes += federated.outer.momentum != 0.0 ? exact_model : 0;
    plan.checkpoint_bytes += exact != config.dtype ? exact_model : 0;  // the masters
    plan.checkpoints_made = federated.rounds;
    plan.keeps_every_round = federated.save_every_round;
    plan.checkpoints_kept =
        federated.save_every_round ? federated.rounds : std::min<std::int64_t>(2, federated.rounds);
  }
}

}  // namespace

std::int64_t RankMemory::sum(const Categories& categories) {
  return std::accumulate(categories.begin(), categories.end(), std::int64_t{0},
                         [](std::int64_t sum, const auto& category) { return sum + category.second; });
}

RunPlan make_plan(const RunConfig& config, const ModelConfig& model, std::int64_t ranks, DeviceKind kind) {
  const LocalBoundary boundary(config.federated.rescale && ranks > 1 ? static_cast<double>(ranks) : 1.0);
  const LocalAttention attention;
  const LocalVocab vocab;
  const Ports ports{boundary, attention, vocab};
  const bool is_federated = config.mode == TrainMode::kFederated;
  const Coordinates at = slot_coordinates(0, ranks);

  RunPlan plan;
  plan.ranks = ranks;
  plan.kind = kind;
  plan.parameters = parameter_count(model);
  StepNeeds needs;
  if (!is_federated) {
    plan_mesh(plan, config, model, needs);
  } else {
    check_world_size(model, ranks);
    plan.tensors = planned_tensors(model, ShardTable::kFederated, at);
    const Llama::Layout layout = FederatedRun::slice_layout(config, 0, ranks);
    const RankMemory slice =
        training_memory(model, layout, FederatedRun::train_limits(config), ports, kind, needs);
    plan.aggregator = slice;
    const bool is_plain = Aggregation(config.federated).takes_values_as_they_are();
    add_aggregator(plan.aggregator, config, model, ports, kind, ranks > 1 || !is_plain);
    if (ranks > 1) {
      plan.trainer = slice;
      plan.bytes_up_per_round =
          (ranks - 1) * split_elements(model, at) * item_bytes(accumulation_dtype(config.dtype));
    }
    CountingBackend counting;
    plan.local_parameters = Llama(model, layout, counting, ports).parameters().numel();
  }
  plan_checkpoints(plan, config);
  plan.attention = needs.work.largest_attention;
  plan.step_flops =
      static_cast<double>(needs.work.matmul_flops) + static_cast<double>(needs.work.attention_flops);
  return plan;
}

std::string format_bytes(std::int64_t bytes) {
  constexpr double kStep = 1024.0;
  const char* unit = "B";
  auto value = static_cast<double>(bytes);
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < kStep) {
      break;
    }
    value /= kStep;
    unit = larger;
  }
  return *unit == 'B' ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, unit);
}

std::string describe(const RunPlan& plan, const RunConfig& config, const ModelConfig& model,
                     const std::string& model_source, const std::string& backend) {
  const bool is_federated = config.mode == TrainMode::kFederated;
  std::string text =
      fmt::format("plan: {} on {} rank{}{}, {}, {}\n", is_federated ? "federated" : "synchronous", plan.ranks,
                  plan.ranks == 1 ? "" : "s", plan.ranks > 1 && !is_federated ? " (" + plan.mesh + ")" : "",
                  dtype_name(config.dtype), backend);
  text += fmt::format("  model: {}\n", model_source);
  text += fmt::format(
      "  {} layers, hidden {}, intermediate {}, {} heads of {}, {} kv heads, vocabulary {}, {} output\n",
      model.n_layers, model.hidden_size, model.intermediate_size, model.n_heads, model.head_dim,
      model.n_kv_heads, model.vocab_size, model.tie_embeddings ? "tied" : "untied");
  text += fmt::format("  parameters: {} in the model, {} per rank\n", plan.parameters, plan.local_parameters);
  text += fmt::format("  learning rate: {}\n", describe_schedule(config.optimizer));
  text += fmt::format("  recomputed in backward: {}\n", enum_name(config.training.recompute));
  if (config.training.dropout > 0.0) {
    text += fmt::format("  dropout: {} of what each attention and MLP adds\n", config.training.dropout);
  }
  if (plan.ranks > 1) {
    text += fmt::format("  parameter{:31}{:<18}per rank\n", "", "global");
    for (const PlannedTensor& tensor : plan.tensors) {
      text += fmt::format("    {:<38}{:<18}{}{}\n", tensor.name, tensor.global.str(), tensor.local.str(),
                          tensor.is_split ? "" : "  (copy)");
    }
  }
  if (!plan.pipeline.empty()) {
    text += fmt::format("  pipeline: {}\n", plan.pipeline);
  }
  const bool is_mesh = plan.ranks > 1 && !is_federated;
  const std::string largest = fmt::format("rank {}, the largest", plan.largest_rank);
  text += describe_memory(is_mesh ? plan.trainer : plan.aggregator, plan.ranks == 1 ? "the rank"
                                                                    : is_mesh
                                                                        ? largest.c_str()
                                                                        : "rank 0 (aggregator and trainer)");
  if (is_mesh && plan.aggregator.total() > plan.trainer.total()) {
    text += fmt::format("  rank 0 at the end, while it writes the model: {} more, for a tensor at a time\n",
                        format_bytes(plan.aggregator.total() - plan.trainer.total()));
  }
  if (plan.ranks > 1 && is_federated) {
    text += describe_memory(plan.trainer, "every other rank");
    text +=
        fmt::format("  gathered per round: {} of split parameters\n", format_bytes(plan.bytes_up_per_round));
  }
  text += fmt::format("  work per step and rank: {:.3g} GFLOP for {} x {} tokens\n", plan.step_flops / 1e9,
                      is_federated ? config.federated.batch_size : plan.rows_per_rank,
                      config.data.max_seq_len - 1);
  return text;
}

}  // namespace caravan

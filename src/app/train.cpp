// caravan train: reads and checks everything, plans, and runs either mode.
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>

#include "caravan/comm/mpi_session.h"
#include "caravan/config/run_config_fields.h"
#include "caravan/core/build_info.h"
#include "caravan/core/log.h"
#include "caravan/federated/federated_training.h"
#include "caravan/federated/local_schedule.h"
#include "caravan/federated/run_plan.h"
#include "caravan/io/config_differences.h"
#include "caravan/io/run_folder.h"
#include "caravan/io/run_folder_lock.h"
#include "caravan/io/yaml_config.h"
#include "caravan/optim/schedule.h"
#include "caravan/train/progress.h"
#include "caravan/train/synchronous_resume.h"
#include "caravan/train/synchronous_training.h"
#include "commands.h"
#include "compute_attention.h"
#include "compute_device.h"
#include "compute_ranks.h"
#include "failure.h"
#include "machine.h"
#include "run_checks.h"
#include "versions.h"

namespace caravan::app {
namespace {

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool dry_run = false;
  bool overwrite = false;
  bool keys = false;
};

std::int64_t planned_ranks(const RunConfig& config, std::int64_t ranks, bool is_dry_run) {
  const auto& wanted = config.federated.world_size;
  if (config.mode == TrainMode::kSynchronous) {
    return is_dry_run ? std::max(ranks, smallest_mesh(config.parallel)) : ranks;
  }
  if (wanted && *wanted != ranks && !is_dry_run) {
    fail<ConfigError>(
        "federated.world_size is {}, but {} rank{} started: run mpirun -n {}, or set it to null", *wanted,
        ranks, ranks == 1 ? " was" : "s were", *wanted);
  }
  return wanted ? *wanted : ranks;
}

/// Optimizer steps of a rank; with packing the most there can be. Throws when there are fewer samples than
/// federated ranks.
std::int64_t planned_steps(const RunConfig& config, std::int64_t ranks, std::int64_t samples) {
  return config.mode == TrainMode::kFederated
             ? LocalSchedule::most_steps(config, part_of(0, ranks, samples).samples())
             : most_synchronous_steps(config, ranks, samples);
}

ExistingRun existing_run(const RunConfig& config, bool overwrite) {
  const Resume choice = resume_choice(config);
  const bool goes_on_here =
      choice == Resume::kLatest || (choice == Resume::kFolder && is_checkpoint_of_run(config.resume, config));
  if (goes_on_here && overwrite) {
    fail<ConfigError>("--overwrite and resume: {} contradict each other; give one of them", config.resume);
  }
  return goes_on_here ? ExistingRun::kResume : overwrite ? ExistingRun::kOverwrite : ExistingRun::kRefuse;
}

/// A run that may start: everything that could be checked before memory is taken.
struct CheckedRun {
  RunInputs inputs;
  RunPlan plan;
  std::optional<FoundCheckpoint> resume;                // where it goes on, in federated mode
  std::unique_ptr<ShardedCheckpointReader> checkpoint;  // and in synchronous mode

  bool is_resumed() const { return resume || checkpoint; }
};

/// Reads and checks on this rank; creates nothing. `lock` is taken on the rank that writes.
CheckedRun check_run(const TrainOptions& options, const Communicator& world, RunFolderLock& lock) {
  CheckedRun checked;
  RunInputs& inputs = checked.inputs;
  std::optional<FoundCheckpoint>& resume = checked.resume;
  const RunConfig config = load_run_config(options.config, options.overrides);
  const std::int64_t ranks = planned_ranks(config, world.size(), options.dry_run);
  const ExistingRun existing = existing_run(config, options.overwrite);
  const bool is_writer = world.rank() == 0 && !options.dry_run;
  if (is_writer) {
    lock.take_if_present(config.output.dir);
  }
  check_run_folder(config.output.dir, existing);
  if (options.overwrite) {
    check_inputs_survive(config);
  }
  progress_style();  // throws when CARAVAN_PROGRESS is wrong: before anything is created
  const auto plan_for = [&](const ModelConfig& model) {
    check_attention(config, model);
    checked.plan = make_plan(config, model, ranks, configured_kind(config.device, config.dtype));
  };
  inputs = open_inputs(config, options.dry_run ? DataUse::kCheckPaths : DataUse::kOpen, plan_for);
  if (inputs.train) {
    check_schedule(config.optimizer.schedule, planned_steps(config, ranks, inputs.train->size()));
  }
  if (resume_choice(config) == Resume::kLatest && config.mode == TrainMode::kFederated) {
    resume = find_resume_state(config, ranks);
    if (resume) {
      open_resume_model(*resume, config, inputs.model.config);
    }
  }
  if (is_writer) {
    check_free_space(checked.plan, config, existing, resume ? *resume->record.round : 0);
  }
  return checked;
}

/// Throws where ranks found different files or decided on different runs. Collective.
void check_same_run(const CheckedRun& checked, Communicator& world) {
  const RunConfig& config = checked.inputs.config;
  Facts facts = input_facts(checked.inputs);
  facts.emplace_back("configuration", to_yaml(config));
  facts.emplace_back("model", describe(checked.plan, config, checked.inputs.model.config, "", ""));
  facts.emplace_back("finished round to resume from",
                     fmt::format("{}", checked.resume ? *checked.resume->record.round : -1));
  check_agreement(world, facts);
}

void say_where_it_goes_on(const CheckedRun& checked) {
  if (checked.resume) {
    log::info("resume: round {} of {} is finished ({})", *checked.resume->record.round,
              checked.inputs.config.federated.rounds, checked.resume->folder);
  }
  if (checked.checkpoint) {
    const TrainingState& state = checked.checkpoint->state();
    log::info("resume: step {} is finished ({}, written by {} rank{}: {})", state.step,
              checked.checkpoint->folder(), state.ranks, state.ranks == 1 ? "" : "s", state.mesh);
  }
}

/// The checkpoint of a synchronous run to go on from, found by all ranks together. Collective.
void find_checkpoint(CheckedRun& checked, Communicator& world) {
  const RunConfig& config = checked.inputs.config;
  if (config.mode == TrainMode::kFederated || resume_choice(config) == Resume::kNever) {
    return;
  }
  agree([&] { checked.checkpoint = find_training_checkpoint(config, world); });
  agree([&] { check_training_checkpoint(checked.checkpoint.get(), checked.inputs, checked.plan.ranks); });
}

/// Nothing was locked while the model was loaded: another run may have come and gone in between.
void check_resume_point_stands(const std::optional<FoundCheckpoint>& before, const RunConfig& config,
                               std::int64_t ranks) {
  const std::optional<FoundCheckpoint> now = find_resume_state(config, ranks);
  if (now.has_value() != before.has_value() || (now && now->record.round != before->record.round)) {
    fail<ConfigError>("resume: another run changed output.dir {} while this one started; start it again",
                      config.output.dir);
  }
}

/// Rank 0's recorder in the locked run folder, which is prepared for it; null on the other ranks.
std::unique_ptr<RunRecorder> open_recorder(const TrainOptions& options, const CheckedRun& checked,
                                           const Communicator& world, const RunEnvironment& environment) {
  if (world.rank() != 0) {
    return nullptr;
  }
  const RunInputs& inputs = checked.inputs;
  const RunConfig& config = inputs.config;
  const bool is_federated = config.mode == TrainMode::kFederated;
  const ExistingRun existing = existing_run(config, options.overwrite);
  if (existing == ExistingRun::kResume) {
    if (is_federated) {
      check_resume_point_stands(checked.resume, config, world.size());
    } else {
      check_still_there(checked.checkpoint.get(), inputs, world.size());
    }
  }
  std::unique_ptr<RunRecorder::ResumePoint> point;
  if (checked.checkpoint) {
    drop_later_checkpoints(*checked.checkpoint, config);
    point = results_to_resume(*checked.checkpoint, config);
  } else if (checked.resume) {
    const RunRecord& record = checked.resume->record;
    point = std::make_unique<RunRecorder::ResumePoint>(
        RunRecorder::ResumePoint{*record.round + 1, record.step_records});
  } else if (existing == ExistingRun::kResume) {
    log::info("resume: {} holds no {}; starting afresh", config.output.dir,
              is_federated ? "finished round" : "complete checkpoint");
  }
  // What a run of this configuration left before its first round or checkpoint was finished is in the way and
  // worth nothing.
  prepare_run_folder(config.output.dir, existing == ExistingRun::kResume && !checked.is_resumed()
                                            ? ExistingRun::kOverwrite
                                            : existing);
  return std::make_unique<RunRecorder>(
      inputs,
      is_federated ? federated_identity(inputs, world.size()) : synchronous_identity(inputs, world.size()),
      environment, point.get());
}

/// Rank 0 holds the lock of the run's folder, which all ranks see where all write to it: each its part of a
/// checkpoint. Collective.
void lock_folder(const RunConfig& config, Communicator& world, RunFolderLock& lock) {
  agree([&] {
    if (world.rank() == 0) {
      lock.take(config.output.dir);
    }
  });
  if (config.mode == TrainMode::kSynchronous) {
    check_folder_is_shared(config.output.dir, world);
  }
}

/// The plan for what computes, which `device: auto` leaves open until it is there.
void plan_on(const ComputeDevice& device, CheckedRun& checked) {
  RunPlan& plan = checked.plan;
  if (device.backend().kind() != plan.kind) {
    plan = make_plan(checked.inputs.config, checked.inputs.model.config, plan.ranks, device.backend().kind());
  }
  for (RankMemory* memory : {&plan.aggregator, &plan.trainer}) {
    add_library_memory(device, *memory);
  }
}

/// What computes, for the plan.
std::string describe_compute(const ComputeDevice& device, const ComputeAttention& attention,
                             const ComputeRanks& ranks) {
  const auto line = [](const char* what, const std::string& description) {
    return description.empty() ? "" : fmt::format("\n  {}: {}", what, description);
  };
  return fmt::format("{}, {} thread{} per rank{}{}", device.backend().name(), threads(),
                     threads() == 1 ? "" : "s", line("attention", attention.description),
                     line("tensors between GPUs", ranks.description));
}

void run(const TrainOptions& options) {
  Communicator& world = MpiSession::current().world();
  RunFolderLock lock;
  CheckedRun checked;
  agree([&] { checked = check_run(options, world, lock); });
  const RunInputs& inputs = checked.inputs;
  RunPlan& plan = checked.plan;
  const RunConfig& config = inputs.config;
  check_same_run(checked, world);
  if (const std::string unused = unused_values(config); world.rank() == 0 && !unused.empty()) {
    log::warning("mode: {} does not use {}", enum_name(config.mode), unused);
  }
  // Without a limit it still tells of faults that show on a device alone.
  constexpr double kForEver = std::numeric_limits<double>::infinity();
  const auto watch =
      watch_waiting(options.dry_run ? std::nullopt
                                    : std::optional<double>(comm_timeout_seconds(config).value_or(kForEver)));
  find_checkpoint(checked, world);
  set_threads(config.threads);
  ComputeDevice device = open_compute_device(config.device, config.dtype, world);
  plan_on(device, checked);
  ComputeAttention attention = choose_attention(device, config, plan, world);
  const ComputeRanks ranks = open_compute_ranks(
      device,
      {config.comm.backend, config.mode == TrainMode::kSynchronous ? config.cuda_graphs : GraphChoice::kAuto},
      world);
  const std::string plan_text = describe(plan, config, inputs.model.config, inputs.model.description,
                                         describe_compute(device, attention, ranks));
  if (options.dry_run) {
    if (world.rank() == 0) {
      fmt::print("{}", plan_text);  // what was asked for, not a message about it
    }
    return;
  }
  log::info("{}", plan_text);
  require_device_memory(device, world.rank() == 0 ? plan.aggregator : plan.trainer,
                        training_remedy(config.mode), world);
  use_attention(device, std::move(attention));
  warn_about_memory(plan, device.is_gpu() ? HostUse::kOffloadOnly : HostUse::kEverything, world);
  const RunEnvironment environment{build_info().commit, version_text(), host_names(world)};
  std::unique_ptr<RunRecorder> recorder;
  const auto open = [&] {
    lock_folder(config, world, lock);
    agree([&] { recorder = open_recorder(options, checked, world, environment); });
    return recorder.get();
  };
  say_where_it_goes_on(checked);
  if (config.mode == TrainMode::kFederated) {
    run_federated(inputs, ranks.all(world), device.backend(), open, checked.resume);
  } else {
    run_synchronous(inputs, ranks.all(world), {device.backend(), *device.host}, open,
                    checked.checkpoint.get());
  }
  if (recorder) {
    log::info("results: {}", recorder->results_path());
  }
}

bool dry_run_by_environment() {
  const char* value = std::getenv("DRY_RUN");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace

void add_train_command(CLI::App& program) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = program.add_subcommand("train", "Train a model: federated rounds or plain steps");
  command->add_option("config", options->config, "YAML configuration");
  command
      ->add_option("--set", options->overrides, "Override one key, e.g. --set optimizer.lr=3e-4 (repeatable)")
      ->allow_extra_args(false);
  command->add_flag("--dry-run", options->dry_run,
                    "Check everything, print the plan, and stop (also DRY_RUN=1)");
  command->add_flag("--overwrite", options->overwrite, "Replace the results that output.dir holds");
  command->add_flag("--keys", options->keys, "Print every configuration key with its default and meaning");
  command->footer(
      "Examples:\n"
      "  mpirun -n 4 caravan train configs/train/llama3.2-3b-federated.yaml --set model.checkpoint=DIR\n"
      "  caravan train RUN.yaml --dry-run --set federated.world_size=8\n"
      "  mpirun -n 2 caravan train RUN.yaml --set resume=latest\n");
  command->callback([options] {
    if (options->keys) {
      if (MpiSession::current().world().rank() == 0) {
        fmt::print("{}", key_reference());
      }
      return;
    }
    if (options->config.empty()) {
      throw ConfigError("caravan train needs a configuration file; see caravan train --help");
    }
    options->dry_run = options->dry_run || dry_run_by_environment();
    run(*options);
  });
}

}  // namespace caravan::app

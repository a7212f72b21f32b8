// caravan verify: proves on the user's own model and mesh that all ranks together compute the model of one
// rank.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "caravan/comm/mpi_session.h"
#include "caravan/config/run_config_fields.h"
#include "caravan/core/atomic_file.h"
#include "caravan/core/build_info.h"
#include "caravan/core/log.h"
#include "caravan/federated/run_plan.h"
#include "caravan/io/run_folder.h"
#include "caravan/io/yaml_config.h"
#include "caravan/optim/schedule.h"
#include "caravan/train/run_recorder.h"
#include "caravan/train/synchronous_training.h"
#include "caravan/train/verify_report.h"
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

namespace fs = std::filesystem;

struct VerifyOptions {
  std::string config;
  std::vector<std::string> overrides;
  std::int64_t steps = 5;
  std::string output;  // empty: verify.h5 in output.dir
  bool overwrite = false;
};

/// Everything that could be checked before memory is taken.
struct CheckedVerification {
  RunInputs inputs;
  MeshSizes sizes;
  RunConfig one_rank;
  std::string output;
};

void check_output(const VerifyOptions& options, const std::string& path) {
  if (options.output.empty()) {
    check_run_folder(folder_of(path), ExistingRun::kOverwrite);  // its other files stay
  } else if (!fs::is_directory(folder_of(path))) {
    fail<ConfigError>("--output {}: there is no folder {}; create it first", path, folder_of(path));
  }
  if (fs::is_directory(path)) {
    fail<ConfigError>("--output {}: is a folder; give a file's name, like {}", path,
                      (fs::path(path) / kVerifyFileName).string());
  }
  if (fs::exists(path) && !options.overwrite) {
    fail<ConfigError>("{}: exists already; give --output another name, or --overwrite to replace the file",
                      path);
  }
}

CheckedVerification check(const VerifyOptions& options, std::int64_t ranks) {
  CheckedVerification checked;
  const RunConfig config = load_run_config(options.config, options.overrides);
  if (config.mode != TrainMode::kSynchronous) {
    throw ConfigError(
        "caravan verify compares a mesh of mode: synchronous with one rank, but mode is federated; add --set "
        "mode=synchronous");
  }
  if (config.dtype == DType::kFloat16) {
    throw ConfigError(
        "caravan verify compares in float32, float64 and bfloat16, but dtype is float16; add --set "
        "dtype=bfloat16");
  }
  checked.output =
      options.output.empty() ? (fs::path(config.output.dir) / kVerifyFileName).string() : options.output;
  check_output(options, checked.output);
  const auto plan_for = [&](const ModelConfig& model) {
    checked.sizes = resolve_mesh(config.parallel, ranks);
    checked.one_rank = one_rank_config(config, checked.sizes);
    check_attention(config, model);
    make_plan(config, model, ranks);  // throws where the mesh cannot be
  };
  checked.inputs = open_inputs(config, DataUse::kOpen, plan_for);
  return checked;
}

/// Throws AgreedError where the attention that the configuration names cannot be had, and where the two
/// models and what is compared have no room. Collective.
ComputeAttention require_room(const CheckedVerification& checked, const ComputeDevice& device,
                              Communicator& world) {
  const RunConfig& config = checked.inputs.config;
  const ModelConfig& model = checked.inputs.model.config;
  const bool is_root = world.rank() == Verifier::kRoot;
  const DeviceKind kind = device.backend().kind();
  RunPlan plan = make_plan(config, model, world.size(), kind);
  const RunPlan alone = make_plan(checked.one_rank, model, 1, kind);
  plan.attention = alone.attention;  // with all heads: the larger one
  ComputeAttention attention = choose_attention(device, config, plan, world);
  RankMemory mine = plan.trainer;
  if (is_root) {
    const RankMemory& one_rank = alone.aggregator;
    for (const auto& [name, bytes] : one_rank.device) {
      mine.device.emplace_back(name + " of the one-rank model", bytes);
    }
    mine.host.insert(mine.host.end(), one_rank.host.begin(), one_rank.host.end());
  }
  add_library_memory(device, mine);
  require_device_memory(device, mine, training_remedy(config.mode), world);
  const VerifierBytes extra = verifier_bytes(config, model, checked.sizes, kind);
  const std::int64_t models = device.is_gpu() ? RankMemory::sum(mine.host) : mine.total();
  require_memory(world, models + extra.rank + (is_root ? extra.root : 0),
                 "caravan verify holds the whole model a second time on rank 0");
  return attention;
}

/// A model with its weights, on this rank alone or, with `world` of all ranks, on the mesh.
std::unique_ptr<SynchronousRun> load_run(const RunConfig& config, const RunInputs& inputs,
                                         Communicator& world, const ComputeDevice& device) {
  auto run = std::make_unique<SynchronousRun>(SynchronousRun::Setup{
      config, inputs.model.config, world, device.backend(), inputs.pad_id, device.host.get()});
  run->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
    load_parameters(inputs.model, static_cast<std::uint64_t>(config.seed), ctx, shards);
  });
  return run;
}

/// The next batch that has a target. Throws IoError when an epoch has none.
void next_batch(BatchLoader& loader, Batch& batch) {
  for (std::int64_t i = 0; i <= loader.max_batches_per_epoch(); ++i) {
    loader.next_step(batch);
    if (batch.valid_tokens > 0) {
      return;
    }
  }
  throw IoError("data.train has no target token: every sample is shorter than two tokens");
}

Verification verify(const VerifyOptions& options, const CheckedVerification& checked, Communicator& world,
                    const ComputeDevice& device) {
  const RunInputs& inputs = checked.inputs;
  const RunConfig& config = inputs.config;
  const auto mesh = load_run(config, inputs, world, device);
  const auto self = world.alone();
  const auto one_rank =
      world.rank() == Verifier::kRoot ? load_run(checked.one_rank, inputs, *self, device) : nullptr;
  BatchLoader loader(*inputs.train, inputs.encoder.get(), SamplePart{0, inputs.train->size(), 0},
                     inputs.train_options(mesh->layout().geometry.batch_size));
  loader.seek_step(0);
  Verifier verifier({world, *mesh, one_rank.get(), inputs.pad_id});
  const std::int64_t planned =
      std::max(options.steps, most_synchronous_steps(config, world.size(), inputs.train->size()));
  Batch batch;
  next_batch(loader, batch);
  log::info("comparing weights, outputs and gradients");
  verifier.compare_models(batch);
  for (std::int64_t step = 1; step <= options.steps; ++step) {
    log::info("comparing step {} of {}", step, options.steps);
    verifier.compare_step(batch, scheduled_lr(config.optimizer, step, planned));
    if (step < options.steps) {
      next_batch(loader, batch);
    }
  }
  return verifier.result();
}

/// Rank 0 does the work of all once more, alone, while the others wait for it.
std::optional<double> waiting_limit(const RunConfig& config, int ranks) {
  return config.comm.timeout_seconds.value_or(kCommTimeoutSeconds * ranks);
}

void run(const VerifyOptions& options) {
  Communicator& world = MpiSession::current().world();
  const std::string start_time = utc_timestamp();
  CheckedVerification checked;
  agree([&] { checked = check(options, world.size()); });
  const RunInputs& inputs = checked.inputs;
  Facts facts = input_facts(inputs);
  facts.emplace_back("configuration", to_yaml(inputs.config));
  check_agreement(world, facts);
  const auto watch = watch_waiting(waiting_limit(inputs.config, world.size()));
  const bool is_root = world.rank() == Verifier::kRoot;
  set_threads(inputs.config.threads);
  ComputeDevice device = open_compute_device(inputs.config.device, inputs.config.dtype, world);
  ComputeAttention attention = require_room(checked, device, world);
  if (!attention.description.empty()) {
    log::info("attention: {}", attention.description);
  }
  use_attention(device, std::move(attention));
  const ComputeRanks ranks =
      open_compute_ranks(device, {inputs.config.comm.backend, inputs.config.cuda_graphs}, world);
  const std::string hosts = host_names(world);
  const Verification result = verify(options, checked, ranks.all(world), device);
  std::string difference;
  agree([&] {
    if (!is_root) {
      return;
    }
    const VerifyAttributes attributes{.ranks = world.size(),
                                      .mesh = describe(checked.sizes),
                                      .dtype = std::string(dtype_name(inputs.config.dtype)),
                                      .config = to_yaml(inputs.config),
                                      .commit = build_info().commit,
                                      .versions = version_text(),
                                      .hosts = hosts,
                                      .start_time = start_time,
                                      .end_time = utc_timestamp()};
    fmt::print("{}", describe(result, attributes));
    create_folders(folder_of(checked.output));
    write_verification(checked.output, result, attributes);
    log::info("results: {}", checked.output);
    if (const Difference* first = result.first_difference()) {
      difference = fmt::format("{}; {} has every tensor", describe(*first), checked.output);
    }
  });
  world.broadcast_bytes(difference, Verifier::kRoot);
  if (!difference.empty()) {
    throw AgreedError(difference, kExitFailure);
  }
}

}  // namespace

void add_verify_command(CLI::App& program) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* command = program.add_subcommand("verify",
                                             "Compare a mesh with the same model on one rank: weights, "
                                             "outputs, gradients, losses. Rank 0 holds the whole "
                                             "model with its training state in memory beside its own part");
  command->add_option("config", options->config, "YAML configuration, as for train with mode: synchronous")
      ->required();
  command->add_option("--set", options->overrides, "Override one key, e.g. --set parallel.tp=2 (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--steps", options->steps, "Optimizer steps whose losses are compared")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--output", options->output, "HDF5 file; default: verify.h5 in output.dir");
  command->add_flag("--overwrite", options->overwrite, "Replace that file");
  command->footer(
      "Ends with 0 when every difference is within its tolerance (docs/notes/verify.md), else with 1 and the "
      "first\n"
      "tensor that differs.\n\n"
      "Examples:\n"
      "  mpirun -n 4 caravan verify RUN.yaml --set parallel.tp=2 --steps 20\n"
      "  mpirun -n 8 caravan verify RUN.yaml --set parallel.cp=2 --set dtype=float64 --output cp2.h5\n"
      "  mpirun -n 4 caravan verify RUN.yaml --set parallel.pp=2 --set "
      "parallel.pipeline_schedule=zero_bubble\n");
  command->callback([options] { run(*options); });
}

}  // namespace caravan::app

#include "caravan/config/run_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <utility>

#include "caravan/config/run_config_fields.h"
#include "caravan/core/nearest_name.h"

namespace caravan {
namespace {

/// Everything that can be said of one value alone: bounds, finite numbers, texts that are not empty.
class ValueCheck {
 public:
  ValueCheck(std::string prefix, std::vector<ConfigProblem>& problems)
      : prefix_(std::move(prefix)), problems_(problems) {}

  template <Section T>
  void operator()(const Field& field, const T& section) {
    ValueCheck inner(prefix_ + std::string(field.key) + ".", problems_);
    visit_fields(inner, section);
  }
  template <class E>
  requires std::is_enum_v<E>
  void operator()(const Field&, const E&) {}
  void operator()(const Field&, const bool&) {}
  void operator()(const Field& field, const std::int64_t& value) {
    if (!field.bounds.contain(static_cast<double>(value))) {
      report(field, fmt::format("is {}; it must be {}", value, field.bounds.str()));
    }
  }
  void operator()(const Field& field, const double& value) {
    if (!std::isfinite(value)) {
      report(field, fmt::format("is {}; it must be a finite number", value));
    } else if (!field.bounds.contain(value)) {
      report(field, fmt::format("is {}; it must be {}", value, field.bounds.str()));
    }
  }
  void operator()(const Field& field, const std::string& value) {
    if (value.empty()) {
      report(field, "is empty; leave the key out or give a text");
    } else if (value.find('\0') != std::string::npos) {
      report(field, "holds a zero byte; no file or name can");
    }
  }
  template <class T>
  void operator()(const Field& field, const std::optional<T>& value) {
    if (value) {
      (*this)(field, *value);
    }
  }
  template <class T>
  void operator()(const Field& field, const std::vector<T>& values) {
    for (const T& value : values) {
      (*this)(field, value);
    }
  }

 private:
  void report(const Field& field, std::string message) {
    problems_.push_back({prefix_ + std::string(field.key), std::move(message)});
  }

  std::string prefix_;
  std::vector<ConfigProblem>& problems_;
};

void check_model(const ModelSection& model, std::vector<ConfigProblem>& problems) {
  std::vector<std::string> given;
  for (const auto& [name, value] : {std::pair{"checkpoint", &model.checkpoint},
                                    std::pair{"preset", &model.preset}, std::pair{"config", &model.config}}) {
    if (value->has_value()) {
      given.push_back(fmt::format("model.{}", name));
    }
  }
  if (given.empty()) {
    problems.push_back({"model",
                        "no weights: give model.checkpoint (a folder), or for random weights model.preset or "
                        "model.config"});
  } else if (given.size() > 1) {
    problems.push_back({"model", fmt::format("{} are given; keep one and set the others to null",
                                             fmt::join(given, " and "))});
  }
  if (model.preset && !model.preset->empty() && !model_preset(*model.preset)) {
    const auto near = nearest_name(*model.preset, model_preset_names());
    problems.push_back({"model.preset", fmt::format("is '{}', which is none of {}{}", *model.preset,
                                                    fmt::join(model_preset_names(), ", "),
                                                    near ? fmt::format("; did you mean {}?", *near) : "")});
  }
  if (model.vocab_size && model.checkpoint) {
    problems.push_back(
        {"model.vocab_size",
         fmt::format("is {}, but a checkpoint brings its own; leave it out", *model.vocab_size)});
  }
}

void check_data(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  if (config.data.train.empty()) {
    problems.push_back({"data.train", "is missing; give a file, a list of files or a pattern"});
  }
  if (config.data.eval.empty() && config.mode == TrainMode::kFederated) {
    problems.push_back({"data.eval", "is missing; every round is evaluated on held-out samples"});
  }
  if (config.data.eval.empty() && config.mode == TrainMode::kSynchronous && config.training.eval_every > 0) {
    problems.push_back(
        {"data.eval", fmt::format("is missing, but training.eval_every is {}", config.training.eval_every)});
  }
}

/// Places of tokens are 32-bit numbers.
void check_step_size(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  constexpr double kMaxTokens = 2147483647.0;
  const bool is_federated = config.mode == TrainMode::kFederated;
  const std::int64_t batch_size =
      is_federated ? config.federated.batch_size
                   : config.training.batch_size.value_or(config.training.batch_size_per_rank.value_or(1));
  const double tokens = static_cast<double>(batch_size) * static_cast<double>(config.data.max_seq_len);
  if (tokens > kMaxTokens) {
    problems.push_back(
        {is_federated ? "federated.batch_size" : "training.batch_size",
         fmt::format("is {} for samples of data.max_seq_len {}: {:.0f} tokens in a step, {:.0f} "
                     "are possible",
                     batch_size, config.data.max_seq_len, tokens, kMaxTokens)});
  }
}

void check_training(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  const TrainingSection& training = config.training;
  if (training.steps && training.epochs) {
    problems.push_back({"training.epochs", fmt::format("is {} and training.steps is {}; give one of them",
                                                       *training.epochs, *training.steps)});
  }
  if (training.batch_size && training.batch_size_per_rank) {
    problems.push_back(
        {"training.batch_size_per_rank", fmt::format("is {} and training.batch_size is {}; give one of them",
                                                     *training.batch_size_per_rank, *training.batch_size)});
  }
  if (config.mode == TrainMode::kFederated && config.parallel != ParallelSection{}) {
    problems.push_back({"parallel", "is the mesh of mode: synchronous, but mode is federated; leave it out"});
  }
}

void check_pipeline(const ParallelSection& parallel, std::vector<ConfigProblem>& problems) {
  const bool is_interleaved = parallel.pipeline_schedule == PipelineSchedule::kInterleaved;
  if (parallel.stages_per_rank > 1 && !is_interleaved) {
    problems.push_back({"parallel.stages_per_rank",
                        fmt::format("is {}, but the schedule {} has one stage per rank; leave it out, or set "
                                    "parallel.pipeline_schedule to interleaved",
                                    parallel.stages_per_rank, enum_name(parallel.pipeline_schedule))});
  } else if (parallel.stages_per_rank == 1 && is_interleaved) {
    problems.push_back({"parallel.stages_per_rank",
                        "is 1, but the schedule interleaved is about several stages per rank; set it to 2 or "
                        "more, or parallel.pipeline_schedule to 1f1b"});
  }
}

/// What cuDNN's attention cannot compute, as far as the configuration tells.
void check_attention(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  const auto refuse = [&](const std::string& why) {
    problems.push_back({"attention", "is cudnn, which " + why + ", or set attention to own"});
  };
  if (config.attention == AttentionChoice::kOwn) {
    return;
  }
  if (config.device == DeviceChoice::kCpu) {
    refuse("computes on GPUs, but device is cpu; set it to cuda");
  }
  if (config.dtype != DType::kBFloat16 && config.dtype != DType::kFloat16) {
    refuse(fmt::format("computes in 16 bits, but dtype is {}; set it to bfloat16", dtype_name(config.dtype)));
  }
  if (config.parallel.cp != 1) {
    refuse(fmt::format("wants whole rows, but parallel.cp is {}; set it to 1", config.parallel.cp));
  }
  if (config.data.pack) {
    refuse("takes one document in a row, but data.pack is true; set it to false");
  }
}

/// Pipelines and rings are refused where the mesh is known.
void check_graphs(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  if (config.cuda_graphs != GraphChoice::kAlways) {
    return;
  }
  if (config.device == DeviceChoice::kCpu) {
    problems.push_back(
        {"cuda_graphs", "is always, but device is cpu, which has none; set it to auto, or device to cuda"});
  }
  if (config.mode == TrainMode::kFederated) {
    return;  // its steps are those of ranks alone
  }
  if (config.parallel.cpu_offload != CpuOffload::kNone) {
    problems.push_back(
        {"cuda_graphs", fmt::format("is always, but with parallel.cpu_offload {} the host computes within a "
                                    "step; set it to auto, or parallel.cpu_offload to none",
                                    enum_name(config.parallel.cpu_offload))});
  }
  if (config.comm.backend == CommBackend::kMpi) {
    problems.push_back({"cuda_graphs",
                        "is always, but comm.backend is mpi, in whose exchanges the host takes part; set it "
                        "to auto, or comm.backend to nccl"});
  }
}

void check_offload(const ParallelSection& parallel, std::vector<ConfigProblem>& problems) {
  if (parallel.cpu_offload == CpuOffload::kParametersAndOptimizer && parallel.zero_stage < 3) {
    problems.push_back(
        {"parallel.cpu_offload",
         fmt::format("is parameters_and_optimizer, but with parallel.zero_stage {} whole weights stay on the "
                     "device; set parallel.zero_stage to 3, or parallel.cpu_offload to optimizer",
                     parallel.zero_stage)});
  }
}

/// A value that the chosen schedule never looks at is a mistake about the schedule.
void check_schedule_keys(const ScheduleSection& schedule, std::vector<ConfigProblem>& problems) {
  if (schedule.decay_steps && schedule.name != LrSchedule::kWsd) {
    problems.push_back({"optimizer.schedule.decay_steps",
                        fmt::format("is {}, which only wsd has; optimizer.schedule.name is {}: leave it out, "
                                    "or set the name to wsd",
                                    *schedule.decay_steps, enum_name(schedule.name))});
  }
  if (schedule.final_factor != 0.0 && schedule.name == LrSchedule::kConstant) {
    problems.push_back({"optimizer.schedule.final_factor",
                        fmt::format("is {}, but a constant rate has no decay; set optimizer.schedule.name to "
                                    "linear, cosine or wsd",
                                    schedule.final_factor)});
  }
}

bool has_16_bits(const RunConfig& config) {
  return accumulation_dtype(config.dtype) != config.dtype;
}

void check_masters(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  if (config.optimizer.master_weights) {
    return;
  }
  const auto add = [&](const std::string& message) {
    problems.push_back({"optimizer.master_weights", message});
  };
  if (config.dtype != DType::kBFloat16) {
    add(
        fmt::format("is false, which is for dtype bfloat16, and dtype is {}; leave it out, or set dtype to "
                    "bfloat16",
                    dtype_name(config.dtype)));
  } else if (config.mode == TrainMode::kFederated) {
    add("is false, which mode synchronous knows; leave it out, or set mode to synchronous");
  } else if (config.parallel.cpu_offload != CpuOffload::kNone) {
    add("is false, but CPUs update what parallel.cpu_offload offloads, and round to the nearest; leave one "
        "of "
        "them out");
  }
}

void check_loss_scale(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  const LossScaleSection& scale = config.training.loss_scale;
  const auto add = [&](const char* key, auto value) {
    problems.push_back(
        {fmt::format("training.loss_scale.{}", key),
         fmt::format("is {}, which is for dtype float16, and dtype is {}; leave it out, or set "
                     "dtype to float16",
                     value, dtype_name(config.dtype))});
  };
  if (config.dtype == DType::kFloat16) {
    return;
  }
  if (scale.initial != LossScaleSection{}.initial) {
    add("initial", scale.initial);
  }
  if (scale.growth_interval != LossScaleSection{}.growth_interval) {
    add("growth_interval", scale.growth_interval);
  }
}

void check_optimizer(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  check_masters(config, problems);
  if (!config.optimizer.name.empty() && config.optimizer.name != "adamw") {
    problems.push_back(
        {"optimizer.name", fmt::format("is '{}'; adamw is the only one", config.optimizer.name)});
  }
  if (config.optimizer.betas.size() != 2) {
    problems.push_back({"optimizer.betas", fmt::format("has {} numbers; it must have two, like [0.9, 0.999]",
                                                       config.optimizer.betas.size())});
  }
  check_schedule_keys(config.optimizer.schedule, problems);
  const OuterSection& outer = config.federated.outer;
  if (outer.nesterov && outer.momentum == 0.0) {
    problems.push_back(
        {"federated.outer.nesterov", "is true without momentum; set federated.outer.momentum, like 0.9"});
  }
}

void check_resume(const RunConfig& config, std::vector<ConfigProblem>& problems) {
  if (config.resume.empty()) {
    return;  // said already, as of any empty text
  }
  const Resume choice = resume_choice(config);
  if (choice == Resume::kFolder && config.mode == TrainMode::kFederated) {
    problems.push_back(
        {"resume",
         fmt::format("is {}; in mode federated it is never or latest, which goes on with the newest "
                     "round in output.dir",
                     config.resume)});
  }
}

}  // namespace

std::optional<double> comm_timeout_seconds(const RunConfig& config) {
  const bool is_synchronous = config.mode == TrainMode::kSynchronous;
  return config.comm.timeout_seconds || !is_synchronous ? config.comm.timeout_seconds : kCommTimeoutSeconds;
}

std::span<const std::string_view> unused_keys(TrainMode mode) {
  static constexpr std::array<std::string_view, 6> kInFederated = {
      "training.steps",      "training.epochs", "training.batch_size", "training.batch_size_per_rank",
      "training.eval_every", "checkpoint"};
  static constexpr std::array<std::string_view, 1> kInSynchronous = {"federated"};
  return mode == TrainMode::kFederated ? std::span<const std::string_view>(kInFederated) : kInSynchronous;
}

Resume resume_choice(const RunConfig& config) {
  return config.resume == "never"    ? Resume::kNever
         : config.resume == "latest" ? Resume::kLatest
                                     : Resume::kFolder;
}

std::vector<ConfigProblem> find_problems(const RunConfig& config) {
  std::vector<ConfigProblem> problems;
  ValueCheck check("", problems);
  visit_fields(check, config);
  if (enum_name(config.dtype) == "?") {
    problems.push_back(
        {"dtype", fmt::format("is {}; use float32, float64, bfloat16 or float16", dtype_name(config.dtype))});
  } else if (has_16_bits(config) && config.device == DeviceChoice::kCpu) {
    problems.push_back({"dtype", fmt::format("is {}, which GPUs compute in; use float32 or float64, or "
                                             "device: cuda",
                                             dtype_name(config.dtype))});
  } else if (config.dtype == DType::kFloat64 && config.device == DeviceChoice::kCuda) {
    problems.push_back(
        {"dtype", "is float64, which CPUs compute in; use float32 or bfloat16, or device: cpu"});
  } else if (config.dtype == DType::kFloat16 && config.mode == TrainMode::kFederated) {
    problems.push_back(
        {"dtype",
         "is float16, which mode synchronous trains in; use bfloat16 or float32, or mode: synchronous"});
  }
  if (config.comm.backend == CommBackend::kNccl && config.device == DeviceChoice::kCpu) {
    problems.push_back(
        {"comm.backend",
         "is nccl, which carries tensors of GPUs, but device is cpu; set it to auto, or device "
         "to cuda"});
  }
  check_attention(config, problems);
  check_graphs(config, problems);
  check_model(config.model, problems);
  check_data(config, problems);
  check_step_size(config, problems);
  check_training(config, problems);
  check_pipeline(config.parallel, problems);
  check_offload(config.parallel, problems);
  check_loss_scale(config, problems);
  check_optimizer(config, problems);
  check_resume(config, problems);
  if (config.output.name && config.output.name->find('/') != std::string::npos) {
    problems.push_back(
        {"output.name", fmt::format("is '{}'; it becomes part of a folder's name and may hold no "
                                    "slash",
                                    *config.output.name)});
  }
  return problems;
}

}  // namespace caravan

// What the user wrote: the whole configuration of a run as plain structs. One visitor per struct
// (run_config_fields.h) is the only list of its keys: reading, writing, checking, `--set` and the
// documentation all walk it. Knows no YAML and no files.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/config/pipeline_kind.h"
#include "caravan/core/comm_backend.h"
#include "caravan/core/dtype.h"

namespace caravan {

enum class TrainMode : std::uint8_t { kFederated, kSynchronous };
enum class Tie : std::uint8_t { kAuto, kTied, kUntied };        // auto | true | false
enum class OptimizerState : std::uint8_t { kFresh, kKeep };     // fresh | keep
enum class Resume : std::uint8_t { kNever, kLatest, kFolder };  // never | latest | the folder of a checkpoint
enum class LrSchedule : std::uint8_t { kConstant, kLinear, kCosine, kWsd };
enum class Recompute : std::uint8_t { kNone, kSelective, kFull };

struct ModelSection {
  std::optional<std::string> checkpoint;  // folder with a Meta or Hugging Face layout
  std::optional<std::string>
      preset;  // random weights of this shape; exactly one of checkpoint, preset, config
  std::optional<std::string> config;       // random weights of the shape in this params.json or config.json
  std::optional<std::int64_t> vocab_size;  // of random weights; null: the tokenizer's, else the shape's
  Tie tie_embeddings = Tie::kAuto;
  std::optional<double> rope_scaling_factor;

  friend bool operator==(const ModelSection&, const ModelSection&) = default;
};

struct DataSection {
  std::vector<std::string> train;  // path, list of paths, or globs
  std::vector<std::string> eval;
  std::optional<std::string> name;  // data set name in results; default: stem of the first train path
  std::int64_t max_seq_len = 512;
  std::optional<std::int64_t> pad_id;
  bool shuffle = true;
  std::int64_t shuffle_buffer = 8192;  // samples
  bool pack = false;

  friend bool operator==(const DataSection&, const DataSection&) = default;
};

/// optim/schedule.h has the formulas.
struct ScheduleSection {
  LrSchedule name = LrSchedule::kConstant;
  std::int64_t warmup_steps = 0;
  std::optional<std::int64_t> decay_steps;  // of wsd; null: a tenth of the steps
  double final_factor = 0.0;

  friend bool operator==(const ScheduleSection&, const ScheduleSection&) = default;
};

struct OptimizerSection {
  std::string name = "adamw";
  double lr = 1e-5;
  double weight_decay = 0.01;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  std::vector<std::string> no_decay;  // name patterns with * and ?
  bool master_weights = true;         // float32 copies of 16-bit weights; false: stochastic rounding
  ScheduleSection schedule;

  friend bool operator==(const OptimizerSection&, const OptimizerSection&) = default;
};

struct OuterSection {
  double momentum = 0.0;
  bool nesterov = false;
  double lr = 1.0;

  friend bool operator==(const OuterSection&, const OuterSection&) = default;
};

struct FederatedSection {
  std::optional<std::int64_t> world_size;
  std::int64_t rounds = 5;
  std::int64_t local_epochs = 1;
  std::int64_t batch_size = 4;
  bool enable_swapping = false;
  bool rescale = false;
  OptimizerState optimizer_state = OptimizerState::kFresh;
  double delta_scale = 1.0;
  bool save_every_round = true;  // false: only the last round's checkpoint is kept
  OuterSection outer;

  friend bool operator==(const FederatedSection&, const FederatedSection&) = default;
};

/// How the keys and values of other ranks' tokens reach a rank's queries when rows are cut over "cp".
enum class ContextExchange : std::uint8_t { kGather, kRing };  // gather | ring

/// kAuto: GPUs where every rank has one that computes in the run's dtype, else CPUs.
enum class DeviceChoice : std::uint8_t { kAuto, kCpu, kCuda };
/// Whose kernels compute the attention of training and its evaluations on GPUs.
enum class AttentionChoice : std::uint8_t { kOwn, kCudnn };  // own | cudnn
/// Which steps GPUs record as CUDA graphs. kAuto: those of a rank alone; kAlways: also those that ranks
/// exchange in.
enum class GraphChoice : std::uint8_t { kAuto, kAlways, kNever };  // auto | always | never
/// What of the weights and their update is kept in host memory, and updated there.
enum class CpuOffload : std::uint8_t { kNone, kOptimizer, kParametersAndOptimizer };

/// The mesh of synchronous training: members per axis, their product is the number of ranks.
struct ParallelSection {
  std::int64_t dp_replicate = 1;
  std::int64_t dp_shard = -1;  // -1, on one axis at most: what the other axes leave of the ranks
  std::int64_t cp = 1;
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  PipelineSchedule pipeline_schedule = PipelineSchedule::k1F1B;
  std::int64_t stages_per_rank = 1;  // of the schedule interleaved
  bool sequence_parallel = true;
  ContextExchange context = ContextExchange::kGather;
  std::int64_t zero_stage = 3;  // what dp_shard divides: 1 optimizer state, 2 and gradients, 3 and weights
  bool reshard_after_forward = true;
  CpuOffload cpu_offload = CpuOffload::kNone;
  double ddp_bucket_mib = 25.0;  // gradients that are summed in one message where copies are whole

  friend bool operator==(const ParallelSection&, const ParallelSection&) = default;
};

/// Of dtype float16.
struct LossScaleSection {
  double initial = 65536.0;
  std::int64_t growth_interval = 2000;

  friend bool operator==(const LossScaleSection&, const LossScaleSection&) = default;
};

struct TrainingSection {
  std::optional<std::int64_t> steps;                // null: 100, unless epochs is given
  std::optional<std::int64_t> epochs;               // instead of steps
  std::optional<std::int64_t> batch_size;           // samples of a step over all ranks; null: 4, unless ...
  std::optional<std::int64_t> batch_size_per_rank;  // ... is given: times dp_replicate · dp_shard
  std::optional<std::int64_t> micro_batch;          // samples a rank runs at a time; null: all of its
                                                    // own, with pp as many as give pp micro-batches
  std::int64_t eval_every = 0;                      // 0: before the first and after the last step only
  std::optional<double> clip_norm;
  LossScaleSection loss_scale;
  Recompute recompute = Recompute::kNone;
  double dropout = 0.0;  // of what each attention and MLP adds to the stream; 0: none

  friend bool operator==(const TrainingSection&, const TrainingSection&) = default;
};

struct CheckpointSection {
  std::int64_t every = 0;  // steps; 0: after the last step only
  std::int64_t keep = 3;   // the newest ones that stay
  bool is_async = false;

  friend bool operator==(const CheckpointSection&, const CheckpointSection&) = default;
};

struct CommSection {
  CommBackend backend = CommBackend::kAuto;  // of device tensors
  std::optional<double> timeout_seconds;     // null: comm_timeout_seconds() says

  friend bool operator==(const CommSection&, const CommSection&) = default;
};

struct OutputSection {
  std::string dir = "runs/default";
  std::optional<std::string> name;

  friend bool operator==(const OutputSection&, const OutputSection&) = default;
};

struct RunConfig {
  TrainMode mode = TrainMode::kFederated;
  DeviceChoice device = DeviceChoice::kAuto;
  DType dtype = DType::kFloat32;
  AttentionChoice attention = AttentionChoice::kOwn;
  GraphChoice cuda_graphs = GraphChoice::kAuto;
  std::int64_t seed = 42;
  std::optional<std::int64_t> threads;  // per rank; null: the program chooses, see its help
  std::optional<std::string> tokenizer;
  std::string resume = "never";  // resume_choice says which of the three it is
  ModelSection model;
  DataSection data;
  OptimizerSection optimizer;
  FederatedSection federated;
  TrainingSection training;
  CheckpointSection checkpoint;
  ParallelSection parallel;
  CommSection comm;
  OutputSection output;

  friend bool operator==(const RunConfig&, const RunConfig&) = default;
};

/// What config.resume says. Any text but never and latest is a folder.
Resume resume_choice(const RunConfig& config);

/// Keys, and sections with all that is below them, that a run in this mode never looks at and that are no
/// error in its configuration: one file may serve both modes. In the order of the configuration.
std::span<const std::string_view> unused_keys(TrainMode mode);

/// How long a rank waits for others in one operation when nobody says how long: more than anything that one
/// does between two exchanges of a step.
inline constexpr double kCommTimeoutSeconds = 1800.0;

/// How long a rank may wait for others in one operation; absent: for ever, as federated ranks do, whose
/// epochs may take days.
std::optional<double> comm_timeout_seconds(const RunConfig& config);

/// One problem with a configuration value: the dotted key (a section's where several keys are at fault
/// together) and what to say after "key: ", with the value and what is right.
struct ConfigProblem {
  std::string key;
  std::string message;
};

/// Everything wrong with the values taken alone and together; files and ranks are not looked at.
std::vector<ConfigProblem> find_problems(const RunConfig& config);

}  // namespace caravan

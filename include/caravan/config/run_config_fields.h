// Every key of a run's configuration: name, one line of help, bounds. See visit.h.
#pragma once

#include <array>
#include <utility>

#include "caravan/config/model_config.h"
#include "caravan/config/run_config.h"
#include "caravan/config/visit.h"

namespace caravan {

template <>
struct EnumNames<TrainMode> {
  static constexpr std::array kNames = {std::pair{std::string_view("federated"), TrainMode::kFederated},
                                        std::pair{std::string_view("synchronous"), TrainMode::kSynchronous}};
};
template <>
struct EnumNames<DType> {
  static constexpr std::array kNames = {std::pair{std::string_view("float64"), DType::kFloat64},
                                        std::pair{std::string_view("float32"), DType::kFloat32},
                                        std::pair{std::string_view("bfloat16"), DType::kBFloat16},
                                        std::pair{std::string_view("float16"), DType::kFloat16}};
};
template <>
struct EnumNames<Tie> {
  static constexpr std::array kNames = {std::pair{std::string_view("auto"), Tie::kAuto},
                                        std::pair{std::string_view("true"), Tie::kTied},
                                        std::pair{std::string_view("false"), Tie::kUntied}};
};
template <>
struct EnumNames<OptimizerState> {
  static constexpr std::array kNames = {std::pair{std::string_view("fresh"), OptimizerState::kFresh},
                                        std::pair{std::string_view("keep"), OptimizerState::kKeep}};
};
template <>
struct EnumNames<ContextExchange> {
  static constexpr std::array kNames = {std::pair{std::string_view("gather"), ContextExchange::kGather},
                                        std::pair{std::string_view("ring"), ContextExchange::kRing}};
};
template <>
struct EnumNames<DeviceChoice> {
  static constexpr std::array kNames = {std::pair{std::string_view("auto"), DeviceChoice::kAuto},
                                        std::pair{std::string_view("cpu"), DeviceChoice::kCpu},
                                        std::pair{std::string_view("cuda"), DeviceChoice::kCuda}};
};
template <>
struct EnumNames<AttentionChoice> {
  static constexpr std::array kNames = {std::pair{std::string_view("own"), AttentionChoice::kOwn},
                                        std::pair{std::string_view("cudnn"), AttentionChoice::kCudnn}};
};
template <>
struct EnumNames<GraphChoice> {
  static constexpr std::array kNames = {std::pair{std::string_view("auto"), GraphChoice::kAuto},
                                        std::pair{std::string_view("always"), GraphChoice::kAlways},
                                        std::pair{std::string_view("never"), GraphChoice::kNever}};
};
template <>
struct EnumNames<CpuOffload> {
  static constexpr std::array kNames = {
      std::pair{std::string_view("none"), CpuOffload::kNone},
      std::pair{std::string_view("optimizer"), CpuOffload::kOptimizer},
      std::pair{std::string_view("parameters_and_optimizer"), CpuOffload::kParametersAndOptimizer}};
};
template <>
struct EnumNames<CommBackend> {
  static constexpr std::array kNames = {std::pair{std::string_view("auto"), CommBackend::kAuto},
                                        std::pair{std::string_view("nccl"), CommBackend::kNccl},
                                        std::pair{std::string_view("mpi"), CommBackend::kMpi}};
};
template <>
struct EnumNames<LrSchedule> {
  static constexpr std::array kNames = {std::pair{std::string_view("constant"), LrSchedule::kConstant},
                                        std::pair{std::string_view("linear"), LrSchedule::kLinear},
                                        std::pair{std::string_view("cosine"), LrSchedule::kCosine},
                                        std::pair{std::string_view("wsd"), LrSchedule::kWsd}};
};
template <>
struct EnumNames<Recompute> {
  static constexpr std::array kNames = {std::pair{std::string_view("none"), Recompute::kNone},
                                        std::pair{std::string_view("selective"), Recompute::kSelective},
                                        std::pair{std::string_view("full"), Recompute::kFull}};
};

// Upper limits keep products of sizes (batch · sequence) far inside int64; nothing real comes near them.
constexpr double kMaxSequence = 1 << 24;
constexpr double kMaxBatch = 1 << 20;

template <class Visitor, MaybeConst<ModelSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(
      Field{.key = "checkpoint",
            .help = "Folder with the weights to start from, Meta or Hugging Face layout. Give exactly one of "
                    "checkpoint, preset and config.",
            .text = TextKind::kPath},
      s.checkpoint);
  visit(Field{.key = "preset", .help = "Random weights of a known shape.", .names = model_preset_names()},
        s.preset);
  visit(Field{.key = "config",
              .help = "Random weights of the shape in this params.json or config.json.",
              .text = TextKind::kPath},
        s.config);
  visit(Field{.key = "vocab_size",
              .help = "Vocabulary of random weights; null takes the tokenizer's, else the shape's.",
              .bounds = at_least(1)},
        s.vocab_size);
  visit(Field{.key = "tie_embeddings",
              .help = "Output layer and token embedding are one parameter; auto looks at the weights or the "
                      "preset."},
        s.tie_embeddings);
  visit(Field{.key = "rope_scaling_factor",
              .help = "Rotary frequency scaling; null takes the checkpoint's (params.json has none: 32 for "
                      "Llama 3.2 1B and 3B, else 8).",
              .bounds = at_least(1)},
        s.rope_scaling_factor);
}

template <class Visitor, MaybeConst<DataSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "train",
              .help =
                  "Training samples: a file, a list of files or a pattern with * and ?; .jsonl with text or "
                  "ids, or plain text with one sample per line, each also as .gz.",
              .text = TextKind::kPath},
        s.train);
  visit(Field{.key = "eval", .help = "Held-out samples, same forms.", .text = TextKind::kPath}, s.eval);
  visit(Field{.key = "name", .help = "Name of the data in the results; null: stem of the first train file."},
        s.name);
  visit(Field{.key = "max_seq_len",
              .help = "Tokens per sample: longer ones are cut, shorter ones padded.",
              .bounds = from_to(2, kMaxSequence)},
        s.max_seq_len);
  visit(
      Field{.key = "pad_id",
            .help =
                "Token id that fills short samples, known by length and never by value; null: 128004 for "
                "Llama 3.1 and later, else end of text (0 when neither tokenizer nor vocabulary is Llama's).",
            .bounds = at_least(0)},
      s.pad_id);
  visit(Field{.key = "shuffle", .help = "Another order in every epoch, from the seed."}, s.shuffle);
  visit(Field{.key = "shuffle_buffer",
              .help = "Samples held in memory for shuffling.",
              .bounds = from_to(1, 1e9)},
        s.shuffle_buffer);
  visit(Field{.key = "pack", .help = "Several short samples in one row, none sees the other."}, s.pack);
}

template <class Visitor, MaybeConst<ScheduleSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "name",
              .help = "After the warm-up: constant, linear or cosine to the end of the run, or wsd (warm-up, "
                      "stable, linear decay at the end)."},
        s.name);
  visit(Field{.key = "warmup_steps",
              .help = "Steps over which the rate rises linearly: lr / warmup_steps in the first, lr in the "
                      "last of them. Federated: of a rank's local steps over all rounds.",
              .bounds = from_to(0, 1e12)},
        s.warmup_steps);
  visit(Field{.key = "decay_steps",
              .help = "Last steps of the run in which wsd lowers the rate; null: a tenth of all.",
              .bounds = from_to(1, 1e12)},
        s.decay_steps);
  visit(Field{.key = "final_factor",
              .help = "Part of lr that the decay leads to, as if there were one step more.",
              .bounds = from_to(0, 1)},
        s.final_factor);
}

template <class Visitor, MaybeConst<OptimizerSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "name", .help = "AdamW as PyTorch's: decoupled decay.", .names = {"adamw"}}, s.name);
  visit(Field{.key = "lr", .help = "Learning rate.", .bounds = greater_than(0)}, s.lr);
  visit(Field{.key = "weight_decay",
              .help = "Decoupled decay of every parameter that no_decay does not name.",
              .bounds = at_least(0)},
        s.weight_decay);
  visit(
      Field{.key = "betas", .help = "Decay of the first and the second moment.", .bounds = from_below(0, 1)},
      s.betas);
  visit(Field{.key = "eps", .help = "Added to the root of the second moment.", .bounds = greater_than(0)},
        s.eps);
  visit(
      Field{.key = "no_decay",
            .help = "Parameters without decay: names like layers.0.attention_norm.weight, or patterns with * "
                    "and ?."},
      s.no_decay);
  visit(Field{.key = "master_weights",
              .help = "float32 copies of 16-bit weights, of which these are the roundings; false, for "
                      "bfloat16: none, weights are rounded up or down by chance."},
        s.master_weights);
  visit(Field{.key = "schedule", .help = "How the learning rate changes from step to step."}, s.schedule);
}

template <class Visitor, MaybeConst<OuterSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "momentum",
              .help = "Momentum on the rounds' changes; 0 for none.",
              .bounds = from_below(0, 1)},
        s.momentum);
  visit(Field{.key = "nesterov", .help = "Nesterov's form of the momentum."}, s.nesterov);
  visit(Field{.key = "lr", .help = "Part of the change that is taken over.", .bounds = greater_than(0)},
        s.lr);
}

template <class Visitor, MaybeConst<FederatedSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "world_size",
              .help = "Number of slices; null: the number of ranks. A dry run plans for the number given.",
              .bounds = from_to(1, kMaxBatch)},
        s.world_size);
  visit(Field{.key = "rounds", .help = "Rounds; 0 evaluates only.", .bounds = from_to(0, 1e9)}, s.rounds);
  visit(Field{.key = "local_epochs",
              .help = "Passes of every rank over its own samples in a round.",
              .bounds = from_to(1, 1e9)},
        s.local_epochs);
  visit(
      Field{.key = "batch_size", .help = "Samples per local step and rank.", .bounds = from_to(1, kMaxBatch)},
      s.batch_size);
  visit(Field{.key = "enable_swapping", .help = "Before every even round each rank moves to the next slice."},
        s.enable_swapping);
  visit(Field{.key = "rescale",
              .help = "Not in the reference: the partial sums of wo and w2 are multiplied by the number of "
                      "slices in local training."},
        s.rescale);
  visit(Field{.key = "optimizer_state",
              .help =
                  "fresh: every round starts a new AdamW. keep (not in the reference): its state stays with "
                  "the slice."},
        s.optimizer_state);
  visit(Field{.key = "delta_scale",
              .help = "Not in the reference: factor on the change of the split parameters.",
              .bounds = greater_than(0)},
        s.delta_scale);
  visit(
      Field{.key = "save_every_round", .help = "A checkpoint per round; false keeps the last round's only."},
      s.save_every_round);
  visit(Field{.key = "outer", .help = "Not in the reference: an outer optimizer on the change of a round."},
        s.outer);
}

template <class Visitor, MaybeConst<LossScaleSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "initial",
              .help = "Scale of the first step's gradients; halved by a step whose gradients overflow, which "
                      "is skipped.",
              .bounds = from_to(1, 16777216)},
        s.initial);
  visit(Field{.key = "growth_interval",
              .help = "Steps in a row without overflow after which the scale is doubled.",
              .bounds = from_to(1, 1e9)},
        s.growth_interval);
}

template <class Visitor, MaybeConst<TrainingSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "steps",
              .help = "Optimizer steps; null: 100, unless epochs is given.",
              .bounds = from_to(1, 1e12)},
        s.steps);
  visit(Field{.key = "epochs",
              .help = "Passes over the training samples, instead of steps.",
              .bounds = from_to(1, 1e9)},
        s.epochs);
  visit(Field{.key = "batch_size",
              .help = "Samples per step over all ranks; null: 4, unless batch_size_per_rank is given.",
              .bounds = from_to(1, kMaxBatch)},
        s.batch_size);
  visit(Field{.key = "batch_size_per_rank",
              .help = "Instead of batch_size: samples per step and data-parallel rank (dp_replicate times "
                      "dp_shard of them).",
              .bounds = from_to(1, kMaxBatch)},
        s.batch_size_per_rank);
  visit(
      Field{.key = "micro_batch",
            .help = "Samples a rank runs at a time; gradients add up over a step's micro-batches. null: "
                    "all of its samples at once, with parallel.pp the most that give pp micro-batches. Used "
                    "in both modes.",
            .bounds = from_to(1, kMaxBatch)},
      s.micro_batch);
  visit(Field{.key = "eval_every",
              .help = "Steps between evaluations; 0: before the first and after the last step.",
              .bounds = at_least(0)},
        s.eval_every);
  visit(Field{.key = "clip_norm",
              .help = "Largest norm of the gradient (of a federated slice: its own); null: no clipping.",
              .bounds = greater_than(0)},
        s.clip_norm);
  visit(Field{.key = "loss_scale",
              .help = "dtype float16: what the loss's gradient is multiplied by, and the update divides by."},
        s.loss_scale);
  visit(
      Field{.key = "recompute",
            .help = "Activations that backward computes again instead of keeping them, in both modes: none; "
                    "selective (norms, SwiGLU); full (all but each segment's input). Same results, bit for "
                    "bit."},
      s.recompute);
  visit(Field{.key = "dropout",
              .help =
                  "Part of every attention and MLP output that is dropped in training before it joins the "
                  "residual stream, the rest divided by 1 - dropout; 0: none. The same masks on every mesh; "
                  "in both modes.",
              .bounds = from_below(0, 1)},
        s.dropout);
}

template <class Visitor, MaybeConst<CheckpointSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "every",
              .help = "Steps between checkpoints; 0: after the last step only.",
              .bounds = from_to(0, 1e12)},
        s.every);
  visit(Field{.key = "keep",
              .help = "Checkpoints that stay, the newest ones; older ones are removed.",
              .bounds = from_to(1, 1e9)},
        s.keep);
  visit(Field{.key = "async",
              .help = "Checkpoints are copied to memory and written while training goes on; takes as much "
                      "memory as a rank writes."},
        s.is_async);
}

constexpr double kMaxRanks = 1 << 20;

template <class Visitor, MaybeConst<ParallelSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "dp_replicate",
              .help = "Copies of the model that each take part of the batch; gradients are summed.",
              .bounds = from_to(-1, kMaxRanks)},
        s.dp_replicate);
  visit(Field{.key = "dp_shard",
              .help = "Ranks that divide the weights, gradients and optimizer state of a copy (FSDP) and the "
                      "batch. -1 on one axis: what the other axes leave of the ranks.",
              .bounds = from_to(-1, kMaxRanks)},
        s.dp_shard);
  visit(Field{.key = "cp",
              .help = "Ranks that divide the tokens of every row (context parallel).",
              .bounds = from_to(-1, kMaxRanks)},
        s.cp);
  visit(Field{.key = "tp",
              .help = "Ranks that divide heads, MLP rows and vocabulary (tensor parallel).",
              .bounds = from_to(-1, kMaxRanks)},
        s.tp);
  visit(Field{.key = "pp",
              .help = "Ranks that divide the layers (pipeline parallel).",
              .bounds = from_to(-1, kMaxRanks)},
        s.pp);
  visit(Field{.key = "pipeline_schedule",
              .help = "With pp: in which order the ranks run micro-batches through the stages."},
        s.pipeline_schedule);
  visit(Field{.key = "stages_per_rank",
              .help = "Stages of each rank of pp; the schedule interleaved has more than one.",
              .bounds = from_to(1, 4096)},
        s.stages_per_rank);
  visit(Field{.key = "sequence_parallel",
              .help = "With tp: the ranks also divide the tokens between the blocks."},
        s.sequence_parallel);
  visit(Field{.key = "context",
              .help = "With cp: gather brings all keys and values at once, ring passes them on."},
        s.context);
  visit(Field{.key = "zero_stage",
              .help = "What dp_shard divides: 1 the optimizer state, 2 also gradients, 3 also weights.",
              .bounds = from_to(1, 3)},
        s.zero_stage);
  visit(Field{.key = "reshard_after_forward",
              .help = "With zero_stage 3: give gathered weights up after the forward pass and gather them "
                      "again for the backward pass."},
        s.reshard_after_forward);
  visit(
      Field{.key = "cpu_offload",
            .help = "What is kept in host memory instead of the device's, and updated there: optimizer (its "
                    "state, and the gradients that it reads), or also the parameters (zero_stage 3)."},
      s.cpu_offload);
  visit(Field{.key = "ddp_bucket_mib",
              .help = "Where copies of the weights are whole (dp_shard 1, no offload): MiB of gradients that "
                      "are summed in "
                      "one message, while earlier layers still compute.",
              .bounds = greater_than(0)},
        s.ddp_bucket_mib);
}

template <class Visitor, MaybeConst<CommSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "backend",
              .help =
                  "What carries tensors of GPUs between ranks. auto: NCCL where every rank finds it and has "
                  "a GPU of its own, else MPI. COMM_BACKEND in the environment says the same; a key other "
                  "than auto comes first."},
        s.backend);
  visit(Field{.key = "timeout_seconds",
              .help =
                  "How long a rank may wait for others in one operation before it says what it waits for and "
                  "ends the job; null: 1800 in mode synchronous, for ever in mode federated, where a rank "
                  "waits for the others' epochs.",
              .bounds = greater_than(0)},
        s.timeout_seconds);
}

template <class Visitor, MaybeConst<OutputSection> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "dir",
              .help = "Folder of this run alone: results.h5, checkpoints, logs.",
              .text = TextKind::kPath},
        s.dir);
  visit(Field{.key = "name", .help = "Name of the checkpoints; null: last part of dir."}, s.name);
}

/// Of a whole run: what computes, and how.
template <class Visitor, MaybeConst<RunConfig> S>
void visit_compute_fields(Visitor& visit, S& s) {
  visit(Field{.key = "device",
              .help =
                  "What computes: cuda is one NVIDIA GPU per rank, by its number on the machine; auto takes "
                  "GPUs where every rank has one that computes in dtype, else CPUs."},
        s.device);
  visit(Field{.key = "dtype",
              .help = "Weights and activations. bfloat16 and float16, on GPUs alone, sum in float32 and keep "
                      "float32 gradients and master weights; float64 is for CPUs."},
        s.dtype);
  visit(Field{.key = "attention",
              .help =
                  "Whose attention GPUs compute: own is Caravan's kernels; cudnn is NVIDIA's library, looked "
                  "for at the start, for 16-bit types, heads of up to 128 and rows of one document that no "
                  "ranks divide."},
        s.attention);
  visit(Field{.key = "cuda_graphs",
              .help =
                  "Which steps GPUs record once and replay: auto those of a rank alone, always also those of "
                  "ranks that exchange over NCCL (without parallel.pp, parallel.cpu_offload or the ring of "
                  "parallel.context), never none."},
        s.cuda_graphs);
}

template <class Visitor, MaybeConst<RunConfig> S>
void visit_fields(Visitor& visit, S& s) {
  visit(Field{.key = "mode",
              .help =
                  "federated: every rank trains its slice alone, rounds put the model together. synchronous: "
                  "plain training."},
        s.mode);
  visit_compute_fields(visit, s);
  visit(Field{.key = "seed", .help = "Of random weights, shuffling and sampling.", .bounds = at_least(0)},
        s.seed);
  visit(
      Field{
          .key = "threads",
          .help =
              "Threads of each rank, for products and everything else; null: the cores this process may "
              "use (affinity, quota) divided by the ranks that share them, or OPENBLAS_NUM_THREADS where the "
              "environment has it.",
          .bounds = from_to(1, 4096)},
      s.threads);
  visit(
      Field{.key = "tokenizer",
            .help = "tokenizer.model or tokenizer.json; null: the one in the checkpoint's folder. Not needed "
                    "when the samples are ids.",
            .text = TextKind::kPath},
      s.tokenizer);
  visit(Field{.key = "resume",
              .help = "latest goes on after the last finished round, or from the newest checkpoint, in "
                      "output.dir; starts afresh when there is none. A path goes on from that folder "
                      "checkpoints/step_N (mode synchronous).",
              .text = TextKind::kPath,
              .names = {"never", "latest"}},
        s.resume);
  visit(Field{.key = "model", .help = "What is trained."}, s.model);
  visit(Field{.key = "data", .help = "What it is trained on."}, s.data);
  visit(Field{.key = "optimizer", .help = "How a step changes the weights."}, s.optimizer);
  visit(Field{.key = "federated", .help = "Rounds; used in mode federated."}, s.federated);
  visit(Field{.key = "training",
              .help = "Steps of mode synchronous; clip_norm, micro_batch, recompute and dropout hold in both "
                      "modes."},
        s.training);
  visit(Field{.key = "checkpoint", .help = "State of training on disk; used in mode synchronous."},
        s.checkpoint);
  visit(Field{.key = "parallel", .help = "The mesh of ranks; used in mode synchronous."}, s.parallel);
  visit(Field{.key = "comm", .help = "How ranks talk to and wait for each other."}, s.comm);
  visit(Field{.key = "output", .help = "Where results go."}, s.output);
}

}  // namespace caravan

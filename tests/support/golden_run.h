// A model of the shared references, loaded on any mesh and ready to train with batches of four rows in order.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "caravan/train/run_inputs.h"
#include "caravan/train/synchronous_run.h"
#include "kernels/cpu/cpu_backend.h"
#include "support/goldens.h"
#include "support/temporary_folder.h"

namespace caravan::test {

/// How a golden model is run; the references do not depend on it.
struct GoldenLayout {
  std::string files = "meta";  // or hf
  ParallelSection parallel = {.dp_shard = 1};
  std::optional<std::int64_t> micro_batch = {};
  Recompute recompute = Recompute::kNone;
  std::optional<double> clip_norm = {};
};

/// `golden`: the model's folder. float64. Collective over `world`.
struct GoldenRun {
  GoldenRun(Communicator& world, const std::string& golden, const GoldenLayout& layout)
      : backend(make_cpu_backend()) {
    write_golden_rows(golden, "train", folder / "train.jsonl");
    write_golden_rows(golden, "test", folder / "test.jsonl");
    RunConfig config;
    config.mode = TrainMode::kSynchronous;
    config.dtype = DType::kFloat64;
    config.model.checkpoint = golden + "/" + layout.files;
    config.data.train = {folder / "train.jsonl"};
    config.data.eval = {folder / "test.jsonl"};
    config.data.max_seq_len = 48;
    config.data.shuffle = false;
    config.training.batch_size = 4;
    config.training.micro_batch = layout.micro_batch;
    config.training.recompute = layout.recompute;
    config.training.clip_norm = layout.clip_norm;
    config.parallel = layout.parallel;
    inputs = open_inputs(config, DataUse::kOpen);
    run = std::make_unique<SynchronousRun>(
        SynchronousRun::Setup{inputs.config, inputs.model.config, world, *backend, inputs.pad_id});
    run->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
      load_parameters(inputs.model, 0, ctx, shards);
    });
    train = std::make_unique<BatchLoader>(*inputs.train, nullptr, SamplePart{0, inputs.train->size(), 0},
                                          inputs.train_options(4));
    eval = std::make_unique<BatchLoader>(*inputs.eval, nullptr, SamplePart{0, inputs.eval->size(), 0},
                                         inputs.eval_options(4));
    train->seek_step(0);
  }

  TemporaryFolder folder;
  std::unique_ptr<Backend> backend;
  RunInputs inputs;
  std::unique_ptr<SynchronousRun> run;
  std::unique_ptr<BatchLoader> train;
  std::unique_ptr<BatchLoader> eval;
};

}  // namespace caravan::test

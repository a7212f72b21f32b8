// A model of the shared references, loaded on any mesh and ready to train with batches of four rows in order.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "caravan/ops/elementwise.h"
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
  std::int64_t stages = 1;  // more than the references have layers: a deeper model that computes the same
};

/// `golden`: the model's folder. float64. Collective over `world`. Where more layers are needed than the
/// references have, layers that add nothing lie between theirs: what such a layer writes to the stream, it
/// multiplies with zeros, which are put back and published after every update; that the update itself is
/// published shows only without such layers. No clipping then: the gradients of those zeros are not zero.
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
    model = inputs.model.config;
    CARAVAN_CHECK(!layout.clip_norm || layout.stages <= model.n_layers, "{} stages of a clipped run",
                  layout.stages);
    model.n_layers = std::max(model.n_layers, layout.stages);
    run = std::make_unique<SynchronousRun>(
        SynchronousRun::Setup{inputs.config, model, world, *backend, inputs.pad_id});
    load();
    train = std::make_unique<BatchLoader>(*inputs.train, nullptr, SamplePart{0, inputs.train->size(), 0},
                                          inputs.train_options(4));
    eval = std::make_unique<BatchLoader>(*inputs.eval, nullptr, SamplePart{0, inputs.eval->size(), 0},
                                         inputs.eval_options(4));
    train->seek_step(0);
  }

  /// One update by the next batch.
  StepResult step(double lr) {
    train->next_step(batch);
    const StepResult result = run->step(batch, lr);
    silence_added_layers();
    return result;
  }

  TemporaryFolder folder;
  std::unique_ptr<Backend> backend;
  RunInputs inputs;
  ModelConfig model;
  std::unique_ptr<SynchronousRun> run;
  std::unique_ptr<BatchLoader> train;
  std::unique_ptr<BatchLoader> eval;
  Batch batch;

 private:
  /// What the files call a tensor of this model; nothing for those of added layers. The first layer stays the
  /// first and the last the last.
  std::optional<std::string> name_in_files(const std::string& name) const {
    const std::string prefix = "layers.";
    const std::int64_t stored = inputs.model.config.n_layers;
    if (!name.starts_with(prefix) || stored == model.n_layers) {
      return name;
    }
    std::size_t digits = 0;
    const std::int64_t layer = std::stoll(name.substr(prefix.size()), &digits);
    for (std::int64_t i = 0; i < stored; ++i) {
      if (layer == i * (model.n_layers - 1) / (stored - 1)) {
        return prefix + std::to_string(i) + name.substr(prefix.size() + digits);
      }
    }
    return std::nullopt;
  }

  void load() {
    run->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
      std::deque<Parameter> stored_parameters;
      std::vector<ParameterShard> stored, added;
      for (const ParameterShard& shard : shards) {
        ParameterSpec spec = shard.parameter->spec();
        if (const auto name = name_in_files(spec.name)) {
          spec.name = *name;
          stored_parameters.emplace_back(std::move(spec), run->layout().at);
          stored.push_back(shard);
          stored.back().parameter = &stored_parameters.back();
        } else {
          added.push_back(shard);
        }
      }
      load_parameters(inputs.model, 0, ctx, stored);
      initialise(ctx, added, 5);
    });
    silence_added_layers();
  }

  void silence_added_layers() {
    if (model.n_layers == inputs.model.config.n_layers) {
      return;
    }
    run->load([&](const Context& ctx, const std::vector<ParameterShard>& shards) {
      for (const ParameterShard& shard : shards) {
        const std::string& name = shard.parameter->name();
        if (!name_in_files(name) && (name.ends_with(".wo.weight") || name.ends_with(".w2.weight"))) {
          Context zeroing = ctx;
          zero(zeroing, {.x = shard.value});
        }
      }
    });
  }
};

}  // namespace caravan::test

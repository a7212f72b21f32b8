// Runs of one tiny model on any mesh, and the numbers by which two layouts are compared.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "caravan/comm/self_communicator.h"
#include "caravan/data/packing.h"
#include "caravan/train/gather_model.h"
#include "caravan/train/run_inputs.h"
#include "caravan/train/synchronous_run.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/elementwise.h"

namespace caravan::test {

/// What one step computes, whole tensors on the root only.
struct MeshGradients {
  double loss = 0.0;
  std::map<std::string, std::vector<double>> values;
};

/// Hidden 64, vocabulary 251 (a prime: cut unevenly), F 158; heads and kv heads as given.
inline ModelConfig mesh_model(bool is_tied, int n_layers = 2, std::int64_t n_kv_heads = 4) {
  ModelConfig model = *model_preset(is_tied ? "tiny-tied" : "tiny");
  model.n_layers = n_layers;
  model.n_kv_heads = n_kv_heads;
  model.vocab_size = 251;
  model.intermediate_size = 158;
  return model;
}

/// Batch number `number` of a fixed sequence: rows of different lengths; packed: several documents in a row.
inline Batch mesh_batch(std::int64_t number, std::int64_t rows, std::int64_t longest, bool is_packed) {
  const CounterRng rng(7, stream_id("mesh batch"));
  std::uint64_t at = static_cast<std::uint64_t>(number) * 100000;
  const auto draw = [&](std::int64_t count) {
    return static_cast<std::int64_t>(rng.uniform(at++) * static_cast<double>(count));
  };
  std::vector<TokenRow> made;
  for (std::int64_t row = 0; row < rows; ++row) {
    TokenRow& tokens = made.emplace_back();
    for (std::int64_t document = 0; document < (is_packed ? 3 : 1); ++document) {
      const std::int64_t most = is_packed ? longest / 3 : longest;
      std::vector<std::int32_t> ids(static_cast<std::size_t>(2 + draw(most - 1)));
      for (std::int32_t& id : ids) {
        id = static_cast<std::int32_t>(draw(251));
      }
      tokens.append_document(ids);
    }
  }
  return make_batch(made, 0);
}

/// A step of `rows` rows of at most `longest` target tokens, clipped.
inline RunConfig mesh_config(const ParallelSection& parallel, DType dtype, std::int64_t rows,
                             std::int64_t longest) {
  RunConfig config;
  config.mode = TrainMode::kSynchronous;
  config.dtype = dtype;
  config.data.max_seq_len = longest + 1;
  config.training.batch_size = rows;
  config.training.clip_norm = 0.9;
  config.parallel = parallel;
  return config;
}

/// How far a mesh may be from one rank, relative. float64 leaves no noise for a fault to hide in; float32's
/// is that of sums in another order.
inline double mesh_tolerance(DType dtype) {
  return dtype == DType::kFloat64 ? 1e-10 : 1e-5;
}

/// One model on a mesh over `world`, weights from a fixed seed.
class MeshRun {
 public:
  MeshRun(Communicator& world, RunConfig config, const ModelConfig& model)
      : MeshRun(world, std::move(config), model, make_cpu_backend()) {}
  /// On another backend, which the run owns.
  MeshRun(Communicator& world, RunConfig config, const ModelConfig& model, std::unique_ptr<Backend> backend)
      : config_(std::move(config)), model_(model), backend_(std::move(backend)) {
    run_ = std::make_unique<SynchronousRun>(
        SynchronousRun::Setup{config_, model_, world, *backend_, 0, host_.get()});
    run_->load(
        [](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 5); });
  }
  SynchronousRun& operator*() { return *run_; }
  SynchronousRun* operator->() { return run_.get(); }

  /// Gradients of one batch. Collective.
  MeshGradients gradients(const Batch& batch) {
    MeshGradients result;
    result.loss = run_->gradients(batch);
    std::vector<ParameterShard> shards = run_->store().shards();
    for (ParameterShard& shard : shards) {
      shard.value = shard.grad;
    }
    result.values = whole(shards);
    return result;
  }
  std::map<std::string, std::vector<double>> weights() { return whole(run_->store().shards()); }

 private:
  std::map<std::string, std::vector<double>> whole(const std::vector<ParameterShard>& shards) {
    const auto specs = parameter_table(model_, ShardTable::kSynchronous);
    ModelGather gather(run_->world(), specs, shards);
    std::map<std::string, std::vector<double>> values;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      if (const TensorView view = gather.gather(i); view.defined()) {
        std::vector<double>& to = values[specs[i].name];
        to.resize(static_cast<std::size_t>(view.numel()));
        reference::copy({view, TensorView(to.data(), DType::kFloat64, view.shape())});
      }
    }
    return values;
  }

  RunConfig config_;
  ModelConfig model_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> host_ = make_cpu_backend();
  std::unique_ptr<SynchronousRun> run_;
};

/// ‖a − b‖ / ‖b‖, and infinity when the sizes differ.
inline double relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) {
    return HUGE_VAL;
  }
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

}  // namespace caravan::test

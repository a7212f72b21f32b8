// Llama blocks as caravan train runs them on a mesh.
#include "bench_workload.h"
#include "caravan/core/counter_rng.h"
#include "caravan/data/packing.h"
#include "caravan/federated/run_plan.h"
#include "caravan/train/synchronous_run.h"

namespace caravan::app {
namespace {

constexpr std::int64_t kHeadDim = 64;
constexpr std::int64_t kVocab = 256;
constexpr double kLearningRate = 1e-4;

/// Rows without padding.
Batch random_batch(const WorkloadSize& size) {
  const CounterRng rng(1, stream_id("bench"));
  std::vector<TokenRow> rows(static_cast<std::size_t>(size.batch));
  std::uint64_t at = 0;
  for (TokenRow& row : rows) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(size.seq_len + 1));
    for (std::int32_t& id : ids) {
      id = static_cast<std::int32_t>(rng.uniform(at++) * static_cast<double>(kVocab));
    }
    row.append_document(ids);
  }
  return make_batch(rows, 0);
}

class Block final : public Workload {
 public:
  Block(const WorkloadSize& size, Division division, Communicator& ranks, Backend& backend)
      : config_(block_config(size, division, ranks.size())),
        model_(block_model(size)),
        batch_(random_batch(size)),
        run_({config_, model_, ranks, backend, 0}),
        memory_bytes_(make_plan(config_, model_, ranks.size(), backend.kind()).trainer.total()) {
    run_.load(
        [](const Context& ctx, const std::vector<ParameterShard>& shards) { initialise(ctx, shards, 1); });
  }
  void gradients() override { run_.gradients(batch_); }
  void step() override { run_.step(batch_, kLearningRate); }
  Traffic traffic() const override { return run_.traffic(); }
  std::int64_t memory_bytes() const override { return memory_bytes_; }

 private:
  RunConfig config_;
  ModelConfig model_;
  Batch batch_;
  SynchronousRun run_;
  std::int64_t memory_bytes_;
};

}  // namespace

ModelConfig block_model(const WorkloadSize& size) {
  ModelConfig model = *model_preset("tiny");
  model.hidden_size = size.hidden;
  model.intermediate_size = size.hidden * 7 / 2;
  model.n_layers = size.layers;
  model.head_dim = kHeadDim;
  model.n_heads = size.hidden / kHeadDim;
  model.n_kv_heads = model.n_heads % 4 == 0 ? model.n_heads / 4 : model.n_heads;
  model.vocab_size = kVocab;
  return model;
}

RunConfig block_config(const WorkloadSize& size, Division division, int ranks) {
  RunConfig config;
  config.mode = TrainMode::kSynchronous;
  config.data.max_seq_len = size.seq_len + 1;
  config.training.batch_size = size.batch;
  config.parallel = mesh_of(division, ranks);
  return config;
}

std::unique_ptr<Workload> make_block_workload(const WorkloadSize& size, Division division,
                                              Communicator& ranks, Backend& backend) {
  return std::make_unique<Block>(size, division, ranks, backend);
}

}  // namespace caravan::app

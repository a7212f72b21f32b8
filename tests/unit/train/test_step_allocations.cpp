// A step takes nothing from the heap once the first one has seen all shapes.
#include <catch2/catch.hpp>
#include <cstdio>

#include "caravan/core/parallel_for.h"
#include "caravan/train/trainer.h"
#include "kernels/cpu/cpu_backend.h"
#include "support/malloc_count.h"

using namespace caravan;

namespace {

Batch batch_of(std::int64_t rows, std::int64_t seq_len) {
  Batch batch;
  batch.batch = rows;
  batch.seq_len = seq_len;
  batch.valid_tokens = rows * seq_len;
  for (std::int64_t t = 0; t < batch.n_tokens(); ++t) {
    batch.ids.push_back(static_cast<std::int32_t>(t * 7 % 61));
    batch.targets.push_back(static_cast<std::int32_t>(t * 5 % 61));
    batch.target_weights.push_back(1.0F);
    batch.index.push_back(static_cast<std::int32_t>(t % seq_len));
    batch.document_start.push_back(0);
  }
  return batch;
}

}  // namespace

TEST_CASE("no step after the first allocates, and neither does an evaluation", "[train][memory]") {
  if (!kCountsAllocations) {
    std::puts("SKIPPED: the sanitizers have their own malloc");
    return;
  }
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 48;
  config.intermediate_size = 96;
  config.n_layers = 2;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 12;
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  const Batch batch = batch_of(3, 130);
  for (const int threads : {1, 3}) {
    INFO(threads << " threads");
    set_cpu_threads(threads);
    const auto backend = make_cpu_backend();
    Llama model(config, {.dtype = DType::kFloat32, .positions = 130}, *backend, {boundary, attention, vocab});
    Trainer trainer(
        model, *backend,
        {.limits = {.batch = 3, .seq_len = 130, .dropout = 0.1}, .optimizer = {.clip_norm = 1.0}});
    initialise(trainer.executor().context(), whole_shards(model.parameters()), 1);
    trainer.step(batch, 1e-3);
    trainer.executor().loss(batch);
    const std::int64_t before = allocations;
    trainer.step(batch, 1e-3);
    trainer.step(batch, 1e-3);
    trainer.executor().loss(batch);
    const std::int64_t taken = allocations - before;
    CHECK(before > 0);  // the hook works
    CHECK(taken == 0);
  }
  set_cpu_threads(1);
}

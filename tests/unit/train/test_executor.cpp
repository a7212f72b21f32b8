#include "caravan/train/executor.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/train/trainer.h"
#include "kernels/cpu/cpu_backend.h"

using namespace caravan;

namespace {

Batch pattern_batch(std::int64_t rows, std::int64_t seq_len) {
  Batch batch;
  batch.batch = rows;
  batch.seq_len = seq_len;
  for (std::int64_t t = 0; t < rows * seq_len; ++t) {
    batch.ids.push_back(static_cast<std::int32_t>(t * 7 % 50));
    batch.targets.push_back(static_cast<std::int32_t>((t + 1) * 7 % 50));
    batch.target_weights.push_back(1.0F);
    batch.index.push_back(static_cast<std::int32_t>(t % seq_len));
    batch.document_start.push_back(0);
  }
  batch.valid_tokens = rows * seq_len;
  return batch;
}

struct Trained {
  explicit Trained(DType dtype, SavePolicy policy = SavePolicy::none(), const char* preset = "tiny",
                   double dropout = 0.0)
      : backend(make_cpu_backend()),
        model(*model_preset(preset), {.dtype = dtype, .positions = 16}, *backend,
              {boundary, attention, vocab}),
        trainer(model, *backend,
                {{.batch = 4, .seq_len = 12, .policy = policy, .dropout = dropout}, {.weight_decay = 0.0}}) {
    initialise(trainer.executor().context(), whole_shards(model.parameters()), 3);
  }
  std::unique_ptr<Backend> backend;
  LocalBoundary boundary;
  LocalAttention attention;
  LocalVocab vocab;
  Llama model;
  Trainer trainer;
};

std::vector<double> gradients(Trained& trained, const Batch& batch) {
  std::vector<double> all = {trained.trainer.gradients(batch)};
  for (const Parameter& parameter : trained.model.parameters().all()) {
    const TensorView grad = parameter.stored_grad();
    all.insert(all.end(), grad.data<double>(), grad.data<double>() + grad.numel());
  }
  return all;
}

}  // namespace

TEST_CASE("a tiny model learns one batch by heart", "[train][executor]") {
  Trained trained(DType::kFloat32);
  const Batch batch = pattern_batch(4, 12);
  const double before = trained.trainer.step(batch, 3e-3).loss;
  double after = before;
  for (int step = 0; step < 80; ++step) {
    after = trained.trainer.step(batch, 3e-3).loss;
  }
  CHECK(before == Approx(std::log(256.0)).epsilon(0.05));
  CHECK(after < 0.05);
}

TEST_CASE("save policies give the same bits", "[train][executor]") {
  const Batch batch = pattern_batch(4, 12);
  const double dropout = GENERATE(0.0, 0.25);
  Trained none(DType::kFloat64, SavePolicy::none(), "tiny", dropout);
  Trained selective(DType::kFloat64, SavePolicy::selective(), "tiny", dropout);
  Trained full(DType::kFloat64, SavePolicy::full(), "tiny", dropout);
  const std::vector<double> expected = gradients(none, batch);
  CHECK(gradients(selective, batch) == expected);
  CHECK(gradients(full, batch) == expected);
  CHECK(full.trainer.executor().saved_high_water() < selective.trainer.executor().saved_high_water());
  CHECK(selective.trainer.executor().saved_high_water() < none.trainer.executor().saved_high_water());
}

TEST_CASE("dropout is in training alone, and takes nothing where it is off", "[train][executor][dropout]") {
  const Batch batch = pattern_batch(4, 12);
  Trained without(DType::kFloat64);
  Trained with(DType::kFloat64, SavePolicy::none(), "tiny", 0.25);
  CHECK(with.trainer.executor().loss(batch) == without.trainer.executor().loss(batch));
  CHECK(with.trainer.executor().logits(batch, 3, 9) == without.trainer.executor().logits(batch, 3, 9));
  StepScalars& scalars = with.trainer.executor().context().scalars;
  scalars.dropout_key = 1;
  const std::vector<double> first = gradients(with, batch);
  CHECK(first != gradients(without, batch));
  scalars.dropout_key = 2;
  CHECK(gradients(with, batch) != first);
  scalars.dropout_key = 1;
  CHECK(gradients(with, batch) == first);
  CHECK(with.trainer.executor().saved_high_water() == without.trainer.executor().saved_high_water());
}

TEST_CASE("measured and counted memory are the same, for every batch that fits", "[train][executor]") {
  Trained trained(DType::kFloat32, SavePolicy::none(), "tiny", GENERATE(0.0, 0.25));
  Executor& executor = trained.trainer.executor();
  trained.trainer.step(pattern_batch(4, 12), 1e-3);
  executor.loss(pattern_batch(4, 12));
  CHECK(executor.saved_high_water() + executor.scratch_high_water() == executor.arena_bytes());
  trained.trainer.step(pattern_batch(1, 3), 1e-3);
  trained.trainer.step(pattern_batch(3, 7), 1e-3);
  CHECK(executor.saved_high_water() + executor.scratch_high_water() == executor.arena_bytes());
}

TEST_CASE("every preset can evaluate with the executor it trains with", "[train][executor]") {
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  for (const std::string& name : model_preset_names()) {
    const ModelConfig config = *model_preset(name);
    Executor::Limits limits{.batch = 4, .seq_len = 511};
    const Ports ports{boundary, attention, vocab};
    const StepNeeds training = Executor::measure(config, {.positions = 512}, ports, limits);
    limits.pass = Pass::kForward;
    CAPTURE(name);
    CHECK(training.scratch_bytes >=
          Executor::measure(config, {.positions = 512}, ports, limits).scratch_bytes);
  }
}

TEST_CASE("counted FLOPs are those of the formula", "[train][executor]") {
  const ModelConfig config = *model_preset("tiny");
  const LocalBoundary boundary;
  const LocalAttention attention;
  const LocalVocab vocab;
  const StepNeeds needs =
      Executor::measure(config, {.positions = 16}, {boundary, attention, vocab}, {.batch = 2, .seq_len = 16});
  std::int64_t matrix_elements = config.vocab_size * config.hidden_size;  // the output layer
  for (const ParameterSpec& spec : parameter_table(config, ShardTable::kWhole)) {
    matrix_elements += spec.name.starts_with("layers.") && spec.shape.rank() == 2 ? spec.shape.numel() : 0;
  }
  const std::int64_t tokens = 32;
  CHECK(needs.work.matmul_flops == 6 * matrix_elements * tokens);
  // Forward 4, backward 10 operations per visible pair and column of a head: half of the square is visible.
  CHECK(needs.work.attention_flops ==
        config.n_layers * 14 * (2 * config.n_heads * 16 * 16 / 2) * config.head_dim);
}

TEST_CASE("a batch without targets changes nothing", "[train][trainer]") {
  Trained trained(DType::kFloat64);
  Batch batch = pattern_batch(2, 5);
  std::fill(batch.target_weights.begin(), batch.target_weights.end(), 0.0F);
  batch.valid_tokens = 0;
  const double before = trained.model.parameters().at("output.weight").stored_value().data<double>()[0];
  CHECK_FALSE(trained.trainer.step(batch, 1e-3).updated);
  CHECK(trained.model.parameters().at("output.weight").stored_value().data<double>()[0] == before);
}

TEST_CASE("a loss that is not finite names step, rank and the first tensor", "[train][trainer]") {
  Trained trained(DType::kFloat64);
  const Batch batch = pattern_batch(2, 5);
  SECTION("a weight") {
    trained.model.parameters().at("layers.1.feed_forward.w2.weight").stored_value().data<double>()[3] =
        std::numeric_limits<double>::quiet_NaN();
    CHECK_THROWS_WITH(trained.trainer.step(batch, 1e-3),
                      Catch::Contains("step 1") && Catch::Contains("layers.1.feed_forward.w2.weight"));
  }
  SECTION("an overflow on the way") {
    Parameter& weight = trained.model.parameters().at("layers.0.attention.wo.weight");
    std::fill_n(weight.stored_value().data<double>(), weight.shape().numel(), 1e308);
    CHECK_THROWS_WITH(trained.trainer.step(batch, 1e-3),
                      Catch::Contains("the output of layers.0.attention.wo"));
  }
}

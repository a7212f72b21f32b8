// forward_backward, adamw_20_steps and adamw_20_steps_clipped of the shared references, float64.
#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/optim/clip.h"
#include "caravan/train/evaluator.h"
#include "caravan/train/run_inputs.h"
#include "caravan/train/synchronous_training.h"
#include "kernels/cpu/cpu_backend.h"
#include "support/goldens.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kTolerance = 1e-9;  // relative

void check_relative(double value, double expected) {
  CHECK(std::abs(value - expected) <= kTolerance * std::abs(expected));
}

/// A golden model in either layout, ready to train with batches of four rows in order.
struct GoldenRun {
  GoldenRun(const std::string& golden, const std::string& layout, std::optional<double> clip_norm)
      : backend(make_cpu_backend()) {
    write_golden_rows(golden, "train", folder / "train.jsonl");
    write_golden_rows(golden, "test", folder / "test.jsonl");
    RunConfig config;
    config.mode = TrainMode::kSynchronous;
    config.dtype = DType::kFloat64;
    config.model.checkpoint = golden + "/" + layout;
    config.data.train = {folder / "train.jsonl"};
    config.data.eval = {folder / "test.jsonl"};
    config.data.max_seq_len = 48;
    config.data.shuffle = false;
    config.training.batch_size = 4;
    config.optimizer.lr = 0.003;
    inputs = open_inputs(config, DataUse::kOpen);
    model = std::make_unique<Llama>(inputs.model.config, SynchronousRun::layout(config), *backend,
                                    Ports{boundary, attention, vocab});
    trainer = std::make_unique<LocalTrainer>(
        *model, *backend,
        LocalTrainer::Options{SynchronousRun::limits(config), adamw_options(config.optimizer), clip_norm});
    load_parameters(inputs.model, 0, trainer->executor().context(), model->parameters());
    train = std::make_unique<BatchLoader>(*inputs.train, nullptr, SamplePart{0, inputs.train->size(), 0},
                                          inputs.train_options(4));
    eval = std::make_unique<BatchLoader>(*inputs.eval, nullptr, SamplePart{0, inputs.eval->size(), 0},
                                         inputs.eval_options(4));
    train->seek_step(0);
  }

  TemporaryFolder folder;
  std::unique_ptr<Backend> backend;
  LocalBoundary boundary;
  LocalAttention attention;
  LocalVocab vocab;
  RunInputs inputs;
  std::unique_ptr<Llama> model;
  std::unique_ptr<LocalTrainer> trainer;
  std::unique_ptr<BatchLoader> train;
  std::unique_ptr<BatchLoader> eval;
};

std::optional<std::string> golden_model() {
  const std::string model = GENERATE(as<std::string>{}, "tiny-llama3", "tiny-llama3-tied");
  return shared_path("goldens/" + model);
}

double norm(const TensorView& view) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < view.numel(); ++i) {
    sum += view.data<double>()[i] * view.data<double>()[i];
  }
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("loss, logits and every gradient of one batch equal the references", "[train][golden]") {
  const auto golden = golden_model();
  if (!golden) {
    return;
  }
  const std::string layout = GENERATE(as<std::string>{}, "meta", "hf");
  const nlohmann::json reference = read_json(*golden + "/reference.json").at("forward_backward");
  GoldenRun run(*golden, layout, std::nullopt);
  Batch batch;
  run.train->next_step(batch);
  REQUIRE(batch.batch == 4);
  check_relative(run.trainer->gradients(batch), reference.at("loss"));
  ParameterSet& parameters = run.model->parameters();
  check_relative(global_norm(run.trainer->executor().context(), parameters), reference.at("grad_norm"));
  CHECK(parameters.all().size() == reference.at("per_parameter").size());
  for (const Parameter& parameter : parameters.all()) {
    CAPTURE(parameter.name(), layout);
    const nlohmann::json expected = reference.at("per_parameter").at(parameter.name());
    const TensorView grad = parameter.stored_grad();
    check_relative(norm(grad), expected.at("norm"));
    for (std::size_t i = 0; i < expected.at("first").size(); ++i) {
      const double first = expected.at("first").at(i);
      CHECK(std::abs(grad.data<double>()[i] - first) <= kTolerance * norm(grad));
    }
  }
  const auto check_logits = [&](const Batch& rows, std::int64_t token, const char* name) {
    const std::vector<double> logits = run.trainer->executor().logits(rows, token, token + 1);
    REQUIRE(logits.size() == reference.at(name).size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double expected = reference.at(name).at(i);
      CHECK(std::abs(logits[i] - expected) <= kTolerance * (1.0 + std::abs(expected)));
    }
  };
  check_logits(batch, 3 * batch.seq_len + 5, "logits_row3_pos5");
  // The other reference looks at the last place of the padded row: the padding as ordinary tokens.
  const nlohmann::json row = read_json(*golden + "/tokens.json").at("train").at(0);
  write_text(run.folder / "padded.jsonl", nlohmann::json{{"ids", row}}.dump() + "\n");
  const Dataset padded({run.folder / "padded.jsonl"});
  BatchLoader loader(padded, nullptr, {0, 1, 0}, run.inputs.train_options(4));
  loader.start_epoch(0);
  REQUIRE(loader.next(batch));
  REQUIRE(batch.seq_len == 47);
  check_logits(batch, 46, "logits_row0_last");
}

TEST_CASE("twenty AdamW steps equal the references, with and without clipping", "[train][golden]") {
  const auto golden = golden_model();
  if (!golden) {
    return;
  }
  const bool is_clipped = GENERATE(false, true);
  const nlohmann::json references = read_json(*golden + "/reference.json");
  const nlohmann::json reference = references.at(is_clipped ? "adamw_20_steps_clipped" : "adamw_20_steps");
  GoldenRun run(*golden, "meta",
                is_clipped ? std::optional<double>(reference.at("clip_norm")) : std::nullopt);
  if (!is_clipped) {
    check_relative(evaluate(run.trainer->executor(), *run.eval).loss, reference.at("test_loss_before"));
  }
  Batch batch;
  for (std::size_t step = 0; step < 20; ++step) {
    CAPTURE(step, is_clipped);
    run.train->next_step(batch);
    const StepResult result = run.trainer->step(batch, 0.003);
    check_relative(result.loss, reference.at("losses").at(step));
    if (is_clipped) {
      check_relative(result.grad_norm, reference.at("grad_norms").at(step));
    }
  }
  if (reference.contains("test_loss_after")) {
    check_relative(evaluate(run.trainer->executor(), *run.eval).loss, reference.at("test_loss_after"));
  }
}

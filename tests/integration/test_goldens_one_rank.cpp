// forward_backward, adamw_20_steps and adamw_20_steps_clipped of the shared references, float64.
#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/comm/self_communicator.h"
#include "support/golden_run.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kTolerance = 1e-9;  // relative

void check_relative(double value, double expected) {
  CHECK(std::abs(value - expected) <= kTolerance * std::abs(expected));
}

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
  SelfCommunicator self;
  GoldenRun golden_run(self, *golden, {.files = layout});
  Batch batch;
  golden_run.train->next_step(batch);
  REQUIRE(batch.batch == 4);
  SynchronousRun& run = *golden_run.run;
  check_relative(run.gradients(batch), reference.at("loss"));
  ParameterSet& parameters = run.model().parameters();
  double sum_squares = 0.0;
  CHECK(parameters.all().size() == reference.at("per_parameter").size());
  for (const Parameter& parameter : parameters.all()) {
    CAPTURE(parameter.name(), layout);
    const nlohmann::json expected = reference.at("per_parameter").at(parameter.name());
    const TensorView grad = parameter.stored_grad();
    check_relative(norm(grad), expected.at("norm"));
    sum_squares += norm(grad) * norm(grad);
    for (std::size_t i = 0; i < expected.at("first").size(); ++i) {
      const double first = expected.at("first").at(i);
      CHECK(std::abs(grad.data<double>()[i] - first) <= kTolerance * norm(grad));
    }
  }
  check_relative(std::sqrt(sum_squares), reference.at("grad_norm"));
  const auto check_logits = [&](const Batch& rows, std::int64_t token, const char* name) {
    const std::vector<double> logits = run.trainer().executor().logits(rows, token, token + 1);
    REQUIRE(logits.size() == reference.at(name).size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double expected = reference.at(name).at(i);
      CHECK(std::abs(logits[i] - expected) <= kTolerance * (1.0 + std::abs(expected)));
    }
  };
  check_logits(batch, 3 * batch.seq_len + 5, "logits_row3_pos5");
  // The other reference looks at the last place of the padded row: the padding as ordinary tokens.
  const nlohmann::json row = read_json(*golden + "/tokens.json").at("train").at(0);
  write_text(golden_run.folder / "padded.jsonl", nlohmann::json{{"ids", row}}.dump() + "\n");
  const Dataset padded({golden_run.folder / "padded.jsonl"});
  BatchLoader loader(padded, nullptr, {0, 1, 0}, golden_run.inputs.train_options(4));
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
  SelfCommunicator self;
  GoldenLayout layout;
  if (is_clipped) {
    layout.clip_norm = reference.at("clip_norm").get<double>();
  }
  GoldenRun golden_run(self, *golden, layout);
  SynchronousRun& run = *golden_run.run;
  if (!is_clipped) {
    check_relative(run.evaluate(*golden_run.eval).loss, reference.at("test_loss_before"));
  }
  for (std::size_t step = 0; step < 20; ++step) {
    CAPTURE(step, is_clipped);
    const StepResult result = golden_run.step(0.003);
    check_relative(result.loss, reference.at("losses").at(step));
    if (is_clipped) {
      check_relative(result.grad_norm, reference.at("grad_norms").at(step));
    }
  }
  if (reference.contains("test_loss_after")) {
    check_relative(run.evaluate(*golden_run.eval).loss, reference.at("test_loss_after"));
  }
}

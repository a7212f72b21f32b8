#include "caravan/optim/adamw.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "kernels/reference/reference_backend.h"

using namespace caravan;

TEST_CASE("name patterns match as a whole", "[optim][adamw]") {
  CHECK(matches_pattern("*norm*", "layers.0.attention_norm.weight"));
  CHECK(matches_pattern("norm.weight", "norm.weight"));
  CHECK_FALSE(matches_pattern("norm", "norm.weight"));
  CHECK(matches_pattern("layers.?.ffn_norm.*", "layers.3.ffn_norm.weight"));
  CHECK_FALSE(matches_pattern("layers.?.ffn_norm.*", "layers.13.ffn_norm.weight"));
  CHECK(matches_pattern("*", ""));
  CHECK_FALSE(matches_pattern("", "x"));
  CHECK(matches_pattern("a*b*c", "a__b_b__c"));
  CHECK_FALSE(matches_pattern("a*b*c", "a__b_b__"));
}

namespace {

struct Small {
  Small()
      : parameters(parameter_table(*model_preset("tiny"), ShardTable::kWhole), {}, DType::kFloat64, backend,
                   Gradients::kAllocated),
        scratch("scratch", allocate_host(64)) {}
  Context context() { return {backend, stream, scratch, scalars, DType::kFloat64}; }
  ReferenceBackend backend;
  ParameterSet parameters;
  Arena scratch;
  Stream stream;
  StepScalars scalars;
};

}  // namespace

TEST_CASE("decay is decoupled, spares no_decay, and comes before the update", "[optim][adamw]") {
  Small small;
  Parameter& decayed = small.parameters.at("output.weight");
  Parameter& spared = small.parameters.at("norm.weight");
  decayed.stored_value().data<double>()[0] = 2.0;
  spared.stored_value().data<double>()[0] = 2.0;
  decayed.stored_grad().data<double>()[0] = 0.5;
  Adamw optimizer(whole_shards(small.parameters), {.weight_decay = 0.1, .no_decay = {"*norm*"}},
                  DType::kFloat64, small.backend);
  Context ctx = small.context();
  ctx.scalars.lr = 0.01;
  optimizer.update(ctx);
  CHECK(optimizer.finish().updates == 1);
  // First step: m̂ = g, v̂ = g², so the update is lr · g / (|g| + eps).
  CHECK(decayed.stored_value().data<double>()[0] ==
        Approx(2.0 * (1.0 - 0.01 * 0.1) - 0.01 * 0.5 / (0.5 + 1e-8)).epsilon(1e-14));
  CHECK(spared.stored_value().data<double>()[0] == 2.0);
  CHECK(optimizer.steps() == 1);
  optimizer.reset(ctx);
  CHECK(optimizer.steps() == 0);
  CHECK(optimizer.state().data<double>()[0] == 0.0);
}

TEST_CASE("the global norm spans all parameters, and clipping never scales up", "[optim][clip]") {
  const auto factor_of = [](double scale, double clip_norm) {
    Small small;
    small.parameters.at("output.weight").stored_grad().data<double>()[5] = 3.0 * scale;
    small.parameters.at("norm.weight").stored_grad().data<double>()[1] = -4.0 * scale;
    Adamw optimizer(whole_shards(small.parameters), {.clip_norm = clip_norm}, DType::kFloat64, small.backend);
    const Context ctx = small.context();
    optimizer.begin(ctx);
    optimizer.add_squares(ctx);
    optimizer.update(ctx);
    const UpdateState& state = optimizer.finish();
    CHECK(state.sum_squares == Approx(25.0 * scale * scale));
    CHECK(state.grad_norm == Approx(5.0 * scale));
    return state.gradient_factor;
  };
  CHECK(factor_of(1.0, 1.0) == Approx(0.2));
  CHECK(factor_of(0.1, 1.0) == 1.0);
  CHECK(factor_of(1.0, std::numeric_limits<double>::infinity()) == 1.0);
  CHECK(factor_of(0.0, 1.0) == 1.0);
}

TEST_CASE("a step that is not finite changes neither weights nor moments, and is not counted",
          "[optim][adamw]") {
  const double bad = GENERATE(std::numeric_limits<double>::infinity(), std::nan(""));
  const bool is_loss = GENERATE(false, true);
  Small small;
  Parameter& weight = small.parameters.at("output.weight");
  weight.stored_value().data<double>()[0] = 2.0;
  weight.stored_grad().data<double>()[0] = is_loss ? 1.0 : bad;
  Adamw optimizer(whole_shards(small.parameters), {}, DType::kFloat64, small.backend);
  Context ctx = small.context();
  ctx.scalars.lr = 0.01;
  optimizer.begin(ctx);
  if (is_loss) {
    optimizer.sums().data<double>()[0] = bad;
  }
  optimizer.add_squares(ctx);
  optimizer.update(ctx);
  CHECK(optimizer.finish().is_skipped == 1);
  CHECK(optimizer.steps() == 0);
  CHECK(weight.stored_value().data<double>()[0] == 2.0);
  CHECK(optimizer.state().data<double>()[0] == 0.0);
}

#include "caravan/model/parameter.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/reference/reference_backend.h"

using namespace caravan;

namespace {

struct Filled {
  Filled(const ModelConfig& config, ShardTable table, const Coordinates& at, DType dtype, std::uint64_t seed)
      : parameters(parameter_table(config, table), at, dtype, backend, Gradients::kNone),
        scratch("scratch", allocate_host(64)) {
    const Context ctx{backend, stream, scratch, scalars, dtype};
    initialise(ctx, whole_shards(parameters), seed);
  }
  ReferenceBackend backend;
  ParameterSet parameters;
  Arena scratch;
  Stream stream;
  StepScalars scalars;
};

double element(const TensorView& view, std::int64_t row, std::int64_t column) {
  return view.data<double>()[row * view.stride(0) + column];
}

}  // namespace

TEST_CASE("the parameter table counts what the configuration says", "[model][parameter]") {
  for (const std::string& name : model_preset_names()) {
    const ModelConfig config = *model_preset(name);
    std::int64_t total = 0;
    for (const ParameterSpec& spec : parameter_table(config, ShardTable::kWhole)) {
      total += spec.shape.numel();
    }
    CHECK(total == parameter_count(config));
  }
}

TEST_CASE("a slice is initialised with the numbers of the whole model", "[model][parameter]") {
  const ModelConfig config = *model_preset("tiny");
  Filled whole(config, ShardTable::kWhole, {}, DType::kFloat64, 42);
  for (const std::int64_t ranks : {2, 4}) {
    for (std::int64_t slot = 0; slot < ranks; ++slot) {
      Filled slice(config, ShardTable::kFederated, Coordinates({{"slot", slot, ranks}}), DType::kFloat64, 42);
      for (const Parameter& part : slice.parameters.all()) {
        const TensorView all = whole.parameters.at(part.name()).stored_value();
        if (part.shape().rank() != 2) {
          continue;
        }
        bool is_equal = true;
        for (std::int64_t i = 0; i < part.shape()[0]; ++i) {
          for (std::int64_t j = 0; j < part.shape()[1]; ++j) {
            is_equal = is_equal && element(part.stored_value(), i, j) ==
                                       element(all, part.region()[0].begin + i, part.region()[1].begin + j);
          }
        }
        CAPTURE(part.name(), slot, ranks);
        CHECK(is_equal);
      }
    }
  }
}

TEST_CASE("another seed or name gives other numbers, and float32 the rounded ones", "[model][parameter]") {
  const ModelConfig config = *model_preset("tiny");
  Filled a(config, ShardTable::kWhole, {}, DType::kFloat64, 1);
  Filled b(config, ShardTable::kWhole, {}, DType::kFloat64, 2);
  Filled c(config, ShardTable::kWhole, {}, DType::kFloat32, 1);
  const std::string name = "layers.0.attention.wq.weight";
  const auto* first = a.parameters.at(name).stored_value().data<double>();
  CHECK(first[0] != b.parameters.at(name).stored_value().data<double>()[0]);
  CHECK(first[0] != a.parameters.at("layers.1.attention.wq.weight").stored_value().data<double>()[0]);
  CHECK(static_cast<float>(first[7]) == c.parameters.at(name).stored_value().data<float>()[7]);
  CHECK(a.parameters.at("norm.weight").stored_value().data<double>()[3] == 1.0);
}

TEST_CASE("initial weights have the standard deviation of the table", "[model][parameter]") {
  const ModelConfig config = *model_preset("tiny");
  Filled filled(config, ShardTable::kWhole, {}, DType::kFloat64, 3);
  for (const Parameter& parameter : filled.parameters.all()) {
    const double expected = parameter.spec().initial_deviation;
    if (expected == 0.0) {
      continue;
    }
    const TensorView value = parameter.stored_value();
    double sum = 0.0;
    double squares = 0.0;
    const auto count = static_cast<double>(value.numel());
    for (std::int64_t i = 0; i < value.numel(); ++i) {
      sum += value.data<double>()[i];
      squares += value.data<double>()[i] * value.data<double>()[i];
    }
    CAPTURE(parameter.name());
    CHECK(std::abs(sum / count) < 5.0 * expected / std::sqrt(count));
    CHECK(std::sqrt(squares / count) == Approx(expected).epsilon(5.0 / std::sqrt(2.0 * count)));
  }
}

#include "caravan/federated/aggregation.h"

#include <catch2/catch.hpp>

#include "kernels/reference/reference_backend.h"

using namespace caravan;

namespace {

struct Model {
  Model()
      : parameters(parameter_table(*model_preset("tiny"), ShardTable::kWhole), {}, DType::kFloat64, backend,
                   Gradients::kNone) {}
  std::vector<TensorView> values() const {
    std::vector<TensorView> all;
    for (const Parameter& parameter : parameters.all()) {
      all.push_back(parameter.stored_value());
    }
    return all;
  }

  ReferenceBackend backend;
  ParameterSet parameters;
};

/// One element through two rounds of Aggregation::apply with these options.
std::vector<double> two_rounds(const FederatedSection& options, Aggregation::Kind kind, double first,
                               double second) {
  Model model;
  Aggregation aggregation(options, model.values());
  const TensorView old = model.parameters.all()[0].stored_value();
  std::vector<double> gathered(static_cast<std::size_t>(old.numel()), 0.0);
  const TensorView view(gathered.data(), DType::kFloat64, old.shape());
  std::vector<double> values;
  old.data<double>()[0] = 10.0;
  for (const double value : {first, second}) {
    gathered[0] = value;
    aggregation.apply(0, kind, view, old);
    values.push_back(old.data<double>()[0]);
  }
  return values;
}

}  // namespace

TEST_CASE("the default takes values as they are, every option of its own does not",
          "[federated][aggregation]") {
  CHECK(Aggregation(FederatedSection{}).takes_values_as_they_are());
  FederatedSection options;
  options.delta_scale = 0.5;
  CHECK_FALSE(Aggregation(options).takes_values_as_they_are());
  options = {};
  options.outer.lr = 0.9;
  CHECK_FALSE(Aggregation(options).takes_values_as_they_are());
  options = {};
  options.outer.momentum = 0.9;
  CHECK_FALSE(Aggregation(options).takes_values_as_they_are());
}

TEST_CASE("delta_scale scales the change of split parameters only", "[federated][aggregation]") {
  FederatedSection options;
  options.delta_scale = 0.5;
  // 10 -> gathered 14: change 4, half of it; then 12 -> gathered 8: change -4, half of it.
  CHECK(two_rounds(options, Aggregation::Kind::kSplit, 14.0, 8.0) == std::vector<double>{12.0, 10.0});
  CHECK(two_rounds(options, Aggregation::Kind::kReplicated, 14.0, 8.0) == std::vector<double>{14.0, 8.0});
}

TEST_CASE("outer momentum carries the last change on, with Nesterov looking ahead",
          "[federated][aggregation]") {
  FederatedSection options;
  options.outer = {.momentum = 0.5, .nesterov = false, .lr = 0.5};
  // v = 4, 10 + 0.5·4 = 12;  change 2, v = 0.5·4 + 2 = 4, 12 + 0.5·4 = 14.
  CHECK(two_rounds(options, Aggregation::Kind::kSplit, 14.0, 14.0) == std::vector<double>{12.0, 14.0});
  options.outer.nesterov = true;
  // v = 4, 10 + 0.5·(4 + 0.5·4) = 13;  change 1, v = 3, 13 + 0.5·(1 + 0.5·3) = 14.25.
  CHECK(two_rounds(options, Aggregation::Kind::kReplicated, 14.0, 14.0) == std::vector<double>{13.0, 14.25});
}

#include "caravan/config/visit.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/config/run_config_fields.h"

using namespace caravan;

TEST_CASE("bounds hold what they say", "[config][visit]") {
  CHECK(at_least(2).contain(2));
  CHECK_FALSE(at_least(2).contain(1.999));
  CHECK_FALSE(greater_than(0).contain(0));
  CHECK(greater_than(0).contain(5e-324));
  CHECK(from_to(1, 3).contain(3));
  CHECK_FALSE(from_to(1, 3).contain(3.001));
  CHECK(from_below(0, 1).contain(0));
  CHECK_FALSE(from_below(0, 1).contain(1));
  CHECK_FALSE(Bounds{}.contain(std::nan("")));
  CHECK(Bounds{}.contain(-1e300));
}

TEST_CASE("bounds are written in words", "[config][visit]") {
  CHECK(at_least(2).str() == "at least 2");
  CHECK(greater_than(0).str() == "greater than 0");
  CHECK(from_to(1, 1000000).str() == "from 1 to 1000000");
  CHECK(from_below(0, 1).str() == "at least 0 and less than 1");
  CHECK(Bounds{}.str().empty());
}

TEST_CASE("enum values have their spelling", "[config][visit]") {
  CHECK(enum_name(TrainMode::kSynchronous) == "synchronous");
  CHECK(enum_name(Tie::kTied) == "true");
  CHECK(enum_name(DType::kFloat64) == "float64");
}

namespace {

struct Keys {
  std::vector<std::string> names;
  std::vector<std::string> without_help;

  template <class T>
  void operator()(const Field& field, const T&) {
    names.emplace_back(field.key);
    if (field.help.empty() || field.help.back() != '.') {
      without_help.emplace_back(field.key);
    }
  }
};

}  // namespace

TEST_CASE("the visitor gives the keys of a section in order, each with a sentence of help",
          "[config][visit]") {
  Keys keys;
  const OptimizerSection section;
  visit_fields(keys, section);
  CHECK(keys.names == std::vector<std::string>{"name", "lr", "weight_decay", "betas", "eps", "no_decay",
                                               "master_weights", "schedule"});
  const RunConfig config;
  visit_fields(keys, config);
  visit_fields(keys, config.model);
  visit_fields(keys, config.data);
  visit_fields(keys, config.federated);
  visit_fields(keys, config.federated.outer);
  visit_fields(keys, config.training);
  visit_fields(keys, config.output);
  CHECK(keys.without_help.empty());
}

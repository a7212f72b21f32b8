// RANKS 1 2 4
// Every federated history of the shared references: tied and untied, with and without swapping, float64 and
// float32.
#include <catch2/catch.hpp>

#include "support/golden_histories.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kFloat64Tolerance =
    1e-9;  // relative; the references are float64 with other summation orders
constexpr double kFloat32Tolerance = 3e-5;  // relative; 32 steps a round in float32

}  // namespace

TEST_CASE("federated histories equal the references", "[federated][golden]") {
  const std::string model = GENERATE(as<std::string>{}, "tiny-llama3", "tiny-llama3-tied");
  check_golden_histories(model, MpiSession::current().world(),
                         {{DType::kFloat64, kFloat64Tolerance}, {DType::kFloat32, kFloat32Tolerance}},
                         [] { return make_cpu_backend(); });
}

// RANKS 1 2 4
// TIMEOUT 300
// The federated histories of the shared references with every slice on a GPU. Too slow for the emulated
// device, which runs rounds in test_ranks.cpp.
#include <catch2/catch.hpp>

#include "../device_ranks.h"
#include "support/golden_histories.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kFloat32Tolerance = 3e-5;  // relative, as on CPUs: 32 steps a round in float32

}  // namespace

TEST_CASE("federated histories on GPUs equal the references", "[federated][golden]") {
  if (!device_or_skip()) {
    return;
  }
  const std::string model = GENERATE(as<std::string>{}, "tiny-llama3", "tiny-llama3-tied");
  const auto world = device_world();
  check_golden_histories(model, *world, {{DType::kFloat32, kFloat32Tolerance}},
                         [] { return device_backend(); });
}

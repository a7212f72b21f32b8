#include "caravan/model/rope_table.h"

#include <catch2/catch.hpp>

using namespace caravan;

namespace {

ModelConfig rope_config(std::int64_t head_dim, double factor) {
  ModelConfig config;
  config.head_dim = head_dim;
  if (factor > 0) {
    config.rope_scaling = RopeScaling{.factor = factor};
  }
  return config;
}

}  // namespace

// Values of an independent computation in float64, nine digits.
TEST_CASE("scaled rotary frequencies have the published values", "[model][rope]") {
  const auto small = rope_frequencies(rope_config(64, 32.0));
  CHECK(small.at(15) == Approx(1.290547928e-03).epsilon(1e-9));
  CHECK(small.at(16) == Approx(4.295567966e-04).epsilon(1e-9));
  CHECK(small.at(17) == Approx(9.708287803e-05).epsilon(1e-9));
  CHECK(small.at(18) == Approx(1.946163818e-05).epsilon(1e-9));
  CHECK(small.at(31) == Approx(9.418306725e-08).epsilon(1e-9));
  const auto large = rope_frequencies(rope_config(128, 8.0));
  CHECK(large.at(29) == Approx(2.166570764e-03).epsilon(1e-9));
  CHECK(large.at(34) == Approx(1.785078128e-04).epsilon(1e-9));
  CHECK(large.at(35) == Approx(9.556212354e-05).epsilon(1e-9));
  CHECK(large.at(63) == Approx(3.068925989e-07).epsilon(1e-9));
  CHECK(rope_frequencies(rope_config(128, 32.0)).at(63) == Approx(7.672314972e-08).epsilon(1e-9));
}

TEST_CASE("short wavelengths keep their frequency and long ones are divided", "[model][rope]") {
  const auto plain = rope_frequencies(rope_config(64, 0.0));
  const auto scaled = rope_frequencies(rope_config(64, 32.0));
  for (std::size_t j = 0; j <= 14; ++j) {
    CHECK(scaled[j] == plain[j]);
  }
  for (std::size_t j = 18; j < 32; ++j) {
    CHECK(scaled[j] == plain[j] / 32.0);
  }
}

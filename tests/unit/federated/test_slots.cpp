#include "caravan/federated/slots.h"

#include <catch2/catch.hpp>

#include "caravan/core/error.h"

using namespace caravan;

TEST_CASE("trainers move one slot on before every even round", "[federated][slots]") {
  CHECK(slots_of_round(0, 4, Swapping::kOn) == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(slots_of_round(1, 4, Swapping::kOn) == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(slots_of_round(2, 4, Swapping::kOn) == std::vector<std::int64_t>{1, 2, 3, 0});
  CHECK(slots_of_round(3, 4, Swapping::kOn) == std::vector<std::int64_t>{1, 2, 3, 0});
  CHECK(slots_of_round(4, 4, Swapping::kOn) == std::vector<std::int64_t>{2, 3, 0, 1});
  CHECK(slots_of_round(8, 4, Swapping::kOn) == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(slots_of_round(5, 4, Swapping::kOff) == std::vector<std::int64_t>{0, 1, 2, 3});
}

TEST_CASE("an impossible number of ranks is refused with the possible ones", "[federated][slots]") {
  ModelConfig config;
  config.n_heads = 24;
  config.n_kv_heads = 8;
  config.intermediate_size = 8192;
  CHECK(allowed_world_sizes(config) == std::vector<std::int64_t>{1, 2, 4, 8});
  CHECK_NOTHROW(check_world_size(config, 8));
  CHECK_THROWS_WITH(check_world_size(config, 3),
                    Catch::Contains("n_kv_heads = 8") && Catch::Contains("intermediate_size = 8192") &&
                        !Catch::Contains("n_heads = 24") && Catch::Contains("1, 2, 4, 8"));
  CHECK_THROWS_AS(check_world_size(config, 16), ConfigError);
}

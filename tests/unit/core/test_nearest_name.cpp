#include "caravan/core/nearest_name.h"

#include <catch2/catch.hpp>

using namespace caravan;

TEST_CASE("edit distance counts insertions, deletions, replacements and swaps of neighbours",
          "[core][names]") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("rounds", "rounds") == 0);
  CHECK(edit_distance("round", "rounds") == 1);
  CHECK(edit_distance("ruonds", "rounds") == 1);
  CHECK(edit_distance("roands", "rounds") == 1);
  CHECK(edit_distance("ROUNDS", "rounds") == 0);
  CHECK(edit_distance("kitten", "sitting") == 3);
}

TEST_CASE("the nearest name is found, and none when all are far", "[core][names]") {
  const std::vector<std::string> names = {"rounds", "local_epochs", "batch_size", "lr"};
  CHECK(nearest_name("batchsize", names) == "batch_size");
  CHECK(nearest_name("local-epoch", names) == "local_epochs");
  CHECK(nearest_name("ld", names) == "lr");
  CHECK_FALSE(nearest_name("xy", names).has_value());
  CHECK_FALSE(nearest_name("momentum", names).has_value());
  CHECK_FALSE(nearest_name("x", {}).has_value());
}

TEST_CASE("of equally near names the one of the same length is meant", "[core][names]") {
  CHECK(nearest_name("modle", {"mode", "model"}) == "model");
  CHECK(nearest_name("modle", {"model", "mode"}) == "model");
  CHECK(nearest_name("mod", {"mode", "model"}) == "mode");
}

TEST_CASE("very long names are compared by their beginning", "[core][names]") {
  const std::string with_tail = std::string(64, 'a') + "tail";
  CHECK(edit_distance(std::string(100000, 'a'), with_tail) == 0);
}

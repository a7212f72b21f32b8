#include "caravan/io/run_record.h"

#include <catch2/catch.hpp>
#include <limits>
#include <nlohmann/json.hpp>

#include "caravan/core/error.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
using Json = nlohmann::json;

namespace {

RunRecord sample_record() {
  RunRecord record;
  record.experiment = {4, 1.0 / 3.0, true, 5, 2, "sums \"quoted\" größer", -7};
  record.mode = "federated";
  record.round = 3;
  record.slots = {1, 2, 3, 0};
  record.config = "mode: federated\nseed: -7\n";
  record.commit = "0123abc-dirty";
  return record;
}

/// The message for a record whose JSON went through `change`.
template <class Change>
std::string error_after(Change&& change) {
  const TemporaryFolder folder;
  write_run_record(folder.path().string(), sample_record());
  Json json = Json::parse(test::read_text(folder / "caravan.json"));
  change(json);
  test::write_text(folder / "caravan.json", json.dump());
  try {
    read_run_record(folder.path().string());
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a run record reads back as it was written", "[io][run_record]") {
  const TemporaryFolder folder;
  const std::string path = folder.path().string();
  CHECK_FALSE(has_run_record(path));
  RunRecord record = sample_record();
  write_run_record(path, record);
  CHECK(has_run_record(path));
  CHECK(read_run_record(path) == record);
  record.round.reset();
  record.step = 120;
  record.slots.clear();
  write_run_record(path, record);
  CHECK(read_run_record(path) == record);
}

TEST_CASE("a record that could not be read again is never written", "[io][run_record]") {
  const TemporaryFolder folder;
  RunRecord record = sample_record();
  SECTION("neither round nor step") {
    record.round.reset();
  }
  SECTION("a slot twice") {
    record.slots = {0, 1, 1, 2};
  }
  SECTION("a learning rate that is no number") {
    record.experiment.lr = std::numeric_limits<double>::quiet_NaN();
  }
  CHECK_THROWS_AS(write_run_record(folder.path().string(), record), InternalError);
  CHECK_FALSE(has_run_record(folder.path().string()));
}

TEST_CASE("an unchanged copy of a record is accepted", "[io][run_record]") {
  CHECK(error_after([](Json&) {}).empty());
}

TEST_CASE("a wrong value in a run record is refused with its key", "[io][run_record]") {
  using Catch::Contains;
  CHECK_THAT(error_after([](Json& json) { json["format_version"] = 2; }), Contains("reads version 1"));
  CHECK_THAT(error_after([](Json& json) { json["colour"] = 2; }), Contains("unknown key 'colour'"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"]["x"] = 2; }),
             Contains("unknown key 'experiment.x'"));
  CHECK_THAT(error_after([](Json& json) { json.erase("commit"); }), Contains("'commit' is missing"));
  CHECK_THAT(error_after([](Json& json) { json["step"] = 3; }), Contains("exactly one of"));
  CHECK_THAT(error_after([](Json& json) { json["round"] = -1; }), Contains("'round' is -1"));
  CHECK_THAT(error_after([](Json& json) { json["round"] = 1.5; }), Contains("'round' is 1.5"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"]["seed"] = 1ULL << 63U; }),
             Contains("'experiment.seed' is 9223372036854775808"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"]["world_size"] = 0; }), Contains("world_size"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"]["world_size"] = 1LL << 40; }),
             Contains("world_size"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"]["lr"] = "fast"; }), Contains("a finite number"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"]["enable_swapping"] = 1; }),
             Contains("true or false"));
  CHECK_THAT(error_after([](Json& json) { json["experiment"] = 1; }), Contains("not a JSON object"));
  CHECK_THAT(error_after([](Json& json) { json["slots"] = {0, 1, 2}; }), Contains("0 to 3"));
  CHECK_THAT(error_after([](Json& json) { json["slots"] = {0, 1, 2, 4}; }), Contains("0 to 3"));
  CHECK_THAT(error_after([](Json& json) { json["slots"] = {0, 1, 2, 2}; }), Contains("0 to 3"));
}

TEST_CASE("a file that is no run record is refused by its path", "[io][run_record]") {
  const TemporaryFolder folder;
  const std::string path = folder.path().string();
  CHECK_THROWS_WITH(read_run_record(path), Catch::Contains("caravan.json: cannot be read"));
  test::write_text(folder / "caravan.json", "{\"format_version\": 1,");
  CHECK_THROWS_WITH(read_run_record(path), Catch::Contains("is not JSON"));
  test::write_text(folder / "caravan.json", std::string(1000000, '['));
  CHECK_THROWS_AS(read_run_record(path), IoError);
  test::write_text(folder / "caravan.json", "[]");
  CHECK_THROWS_WITH(read_run_record(path), Catch::Contains("not a JSON object"));
}

#include "caravan/io/run_record.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "caravan/core/atomic_file.h"
#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/core/text_file.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kFormatVersion = 1;
constexpr std::int64_t kMaxFileBytes = std::int64_t{16} << 20U;  // the configuration is a few kilobytes
constexpr std::int64_t kMaxWorldSize = 1 << 20;

std::string file_of(const std::string& folder) {
  return (std::filesystem::path(folder) / kRunRecordName).string();
}

/// One JSON object whose keys are all asked for by name: what is left over is unknown.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string path, std::string prefix)
      : object_(object), path_(std::move(path)), prefix_(std::move(prefix)) {
    if (!object_.is_object()) {
      fail<IoError>("{}: {} is not a JSON object", path_, prefix_.empty() ? "the content" : prefix_);
    }
  }

  void refuse_unknown(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        fail<IoError>("{}: unknown key '{}{}'", path_, prefix_, excerpt(key));
      }
    }
  }
  const Json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) {
      fail<IoError>("{}: key '{}{}' is missing", path_, prefix_, key);
    }
    return *found;
  }
  std::int64_t integer(const char* key, std::int64_t lowest) const { return integer(at(key), key, lowest); }
  std::int64_t integer(const Json& value, const char* key, std::int64_t lowest) const {
    const bool fits =
        value.is_number_integer() &&
        (!value.is_number_unsigned() ||
         value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
    if (!fits || value.get<std::int64_t>() < lowest) {
      wrong(key, value, fmt::format("an integer of at least {}", lowest));
    }
    return value.get<std::int64_t>();
  }
  double number(const char* key) const {
    const Json& value = at(key);
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      wrong(key, value, "a finite number");
    }
    return value.get<double>();
  }
  bool truth(const char* key) const {
    if (!at(key).is_boolean()) {
      wrong(key, at(key), "true or false");
    }
    return at(key).get<bool>();
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) {
      wrong(key, at(key), "a string");
    }
    return at(key).get<std::string>();
  }
  [[noreturn]] void wrong(const char* key, const Json& value, const std::string& expected) const {
    const std::string shown = value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 80);
    fail<IoError>("{}: '{}{}' is {} where {} is expected", path_, prefix_, key, shown, expected);
  }

 private:
  const Json& object_;
  std::string path_;
  std::string prefix_;
};

ExperimentKey read_experiment(const Json& object, const std::string& path) {
  const ObjectReader reader(object, path, "experiment.");
  reader.refuse_unknown({"world_size", "lr", "enable_swapping", "rounds", "local_epochs", "dataset", "seed"});
  ExperimentKey key;
  key.world_size = reader.integer("world_size", 1);
  if (key.world_size > kMaxWorldSize) {
    reader.wrong("world_size", reader.at("world_size"), fmt::format("at most {}", kMaxWorldSize));
  }
  key.lr = reader.number("lr");
  key.enable_swapping = reader.truth("enable_swapping");
  key.rounds = reader.integer("rounds", 0);
  key.local_epochs = reader.integer("local_epochs", 0);
  key.dataset = reader.text("dataset");
  key.seed = reader.integer("seed", std::numeric_limits<std::int64_t>::min());
  return key;
}

std::vector<std::int64_t> read_slots(const ObjectReader& reader, std::int64_t world_size) {
  const Json& list = reader.at("slots");
  const std::string expected = fmt::format("[] or each of 0 to {} once, in any order", world_size - 1);
  if (!list.is_array() || (!list.empty() && list.size() != static_cast<std::size_t>(world_size))) {
    reader.wrong("slots", list, expected);
  }
  std::vector<std::int64_t> slots;
  std::vector<bool> is_taken(list.size(), false);
  for (const Json& item : list) {
    const std::int64_t slot = reader.integer(item, "slots", 0);
    if (slot >= world_size || is_taken[static_cast<std::size_t>(slot)]) {
      reader.wrong("slots", list, expected);
    }
    is_taken[static_cast<std::size_t>(slot)] = true;
    slots.push_back(slot);
  }
  return slots;
}

RunRecord decode(const Json& json, const std::string& path) {
  const ObjectReader reader(json, path, "");
  const std::int64_t version = reader.integer("format_version", 1);
  if (version != kFormatVersion) {
    fail<IoError>("{}: format_version is {}; this Caravan reads version {}", path, version, kFormatVersion);
  }
  reader.refuse_unknown(
      {"format_version", "experiment", "mode", "round", "step", "slots", "step_records", "config", "commit"});
  RunRecord record;
  record.experiment = read_experiment(reader.at("experiment"), path);
  record.mode = reader.text("mode");
  if (json.contains("round") == json.contains("step")) {
    fail<IoError>("{}: exactly one of 'round' and 'step' is expected", path);
  }
  if (json.contains("round")) {
    record.round = reader.integer("round", 0);
  } else {
    record.step = reader.integer("step", 0);
  }
  record.slots = read_slots(reader, record.experiment.world_size);
  record.step_records = reader.integer("step_records", 0);
  record.config = reader.text("config");
  record.commit = reader.text("commit");
  return record;
}

Json encode(const RunRecord& record) {
  const ExperimentKey& key = record.experiment;
  Json json;
  json["format_version"] = kFormatVersion;
  json["experiment"] = {{"world_size", key.world_size},
                        {"lr", key.lr},
                        {"enable_swapping", key.enable_swapping},
                        {"rounds", key.rounds},
                        {"local_epochs", key.local_epochs},
                        {"dataset", key.dataset},
                        {"seed", key.seed}};
  json["mode"] = record.mode;
  if (record.round) {
    json["round"] = *record.round;
  }
  if (record.step) {
    json["step"] = *record.step;
  }
  json["slots"] = record.slots;
  json["step_records"] = record.step_records;
  json["config"] = record.config;
  json["commit"] = record.commit;
  return json;
}

Json parse_file(const std::string& path) {
  const std::string text = read_text_file(path, kMaxFileBytes);
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& problem) {
    fail<IoError>("{}: is not JSON: {}", path, excerpt(problem.what(), 300));
  }
}

}  // namespace

std::string run_record_text(const RunRecord& record) {
  const Json json = encode(record);
  try {
    CARAVAN_CHECK(decode(json, kRunRecordName) == record, "the run record would not read back the same");
  } catch (const IoError& problem) {
    fail<InternalError>("a run record that could not be read again: {}", problem.what());
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_run_record(const std::string& folder, const RunRecord& record) {
  write_file_atomically(file_of(folder), run_record_text(record));
}

RunRecord read_run_record(const std::string& folder) {
  const std::string path = file_of(folder);
  return decode(parse_file(path), path);
}

bool has_run_record(const std::string& folder) {
  return std::filesystem::is_regular_file(file_of(folder));
}

}  // namespace caravan

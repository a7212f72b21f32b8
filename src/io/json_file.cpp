#include "json_file.h"

#include <cmath>
#include <set>
#include <vector>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/core/text_file.h"

namespace caravan {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxReason = 300;  // the parser quotes what it read last

}  // namespace

json read_json_object(const std::string& path, std::int64_t limit_bytes) {
  return parse_json_object(read_text_file(path, limit_bytes), path);
}

json parse_json_object(const std::string& text, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxDepth) {
      fail<IoError>("{}: nested deeper than {}", path, kMaxDepth);
    }
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      fail<IoError>("{}: key '{}' occurs twice in one object", path, excerpt(parsed.get<std::string>()));
    }
    return true;
  };
  json object;
  try {
    object = json::parse(text, watch);
  } catch (const json::exception& error) {
    fail<IoError>("{}: is not valid JSON: {}", path, excerpt(error.what(), kMaxReason));
  }
  if (!object.is_object()) {
    fail<IoError>("{}: holds a JSON {}, not an object", path, object.type_name());
  }
  return object;
}

const json* JsonFields::find(const std::string& key) const {
  const auto at = object_.find(key);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

std::optional<std::int64_t> JsonFields::integer(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<std::uint64_t>() >> 63U != 0)) {
    fail<IoError>("{}: '{}' is {}, not an integer", where_, key, excerpt(value->dump()));
  }
  return value->get<std::int64_t>();
}

std::optional<double> JsonFields::number(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_number()) {
    fail<IoError>("{}: '{}' is {}, not a number", where_, key, excerpt(value->dump()));
  }
  return value->get<double>();
}

std::optional<bool> JsonFields::boolean(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    fail<IoError>("{}: '{}' is {}, not true or false", where_, key, excerpt(value->dump()));
  }
  return value->get<bool>();
}

std::optional<std::string> JsonFields::text(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    fail<IoError>("{}: '{}' is {}, not a string", where_, key, excerpt(value->dump()));
  }
  return value->get<std::string>();
}

std::int64_t JsonFields::required_size(const std::string& key, std::int64_t limit) const {
  const auto value = integer(key);
  if (!value) {
    fail<IoError>("{}: '{}' is missing", where_, key);
  }
  if (*value < 1 || *value > limit) {
    fail<IoError>("{}: '{}' is {}; it must be from 1 to {}", where_, key, *value, limit);
  }
  return *value;
}

std::int64_t JsonFields::size_or(const std::string& key, std::int64_t fallback, std::int64_t limit) const {
  return find(key) == nullptr ? fallback : required_size(key, limit);
}

double JsonFields::positive_or(const std::string& key, double fallback) const {
  const double value = number(key).value_or(fallback);
  if (!(value > 0) || !std::isfinite(value)) {
    fail<IoError>("{}: '{}' is {}; it must be positive", where_, key, value);
  }
  return value;
}

}  // namespace caravan

// JSON files with errors in words, and typed access to their keys.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace caravan {

/// The object in `path`. IoError for a file larger than `limit_bytes`, malformed JSON, a key that occurs
/// twice, nesting deeper than 64, or another value than an object.
nlohmann::json read_json_object(const std::string& path, std::int64_t limit_bytes);
/// The same for text already read from `path`.
nlohmann::json parse_json_object(const std::string& text, const std::string& path);

/// Typed access: a null value counts as absent, a value of another type is an IoError that names file and
/// key.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const nlohmann::json* find(const std::string& key) const;
  std::optional<std::int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  /// IoError when absent or not in [1, limit].
  std::int64_t required_size(const std::string& key, std::int64_t limit) const;
  /// As required_size, but absent gives `fallback`.
  std::int64_t size_or(const std::string& key, std::int64_t fallback, std::int64_t limit) const;
  /// IoError unless positive and finite; absent gives `fallback`.
  double positive_or(const std::string& key, double fallback) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace caravan

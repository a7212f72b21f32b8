// What may stand at a key, in words; shared by error messages and the key reference.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <string>
#include <vector>

#include "caravan/config/run_config_fields.h"

namespace caravan {

inline std::string with_bounds(const std::string& text, const Bounds& bounds) {
  const std::string limits = bounds.str();
  return limits.empty() ? text : text + " " + limits;
}

inline std::string expected(const Field&, const bool&) {
  return "true or false";
}
inline std::string expected(const Field& field, const std::int64_t&) {
  return with_bounds("a whole number", field.bounds);
}
inline std::string expected(const Field& field, const double&) {
  return with_bounds("a number", field.bounds);
}
inline std::string expected(const Field& field, const std::string&) {
  if (!field.names.empty()) {
    const std::string names = fmt::format("{}", fmt::join(field.names, ", "));
    return field.text == TextKind::kPath ? names + " or a path"
           : field.names.size() == 1     ? names
                                         : "one of " + names;
  }
  return field.text == TextKind::kPath ? "a path" : "a text";
}
inline std::string expected(const Field& field, const std::vector<std::string>&) {
  return field.text == TextKind::kPath ? "a path or a list of paths" : "a text or a list of texts";
}
inline std::string expected(const Field& field, const std::vector<double>&) {
  return "a list of " + with_bounds("numbers", field.bounds);
}
template <class E>
requires std::is_enum_v<E> std::string expected(const Field&, const E&) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : EnumNames<E>::kNames) {
    names.push_back(name);
  }
  return fmt::format("one of {}", fmt::join(names, ", "));
}
template <class T>
std::string expected(const Field& field, const std::optional<T>&) {
  return expected(field, T{}) + " or null";
}

}  // namespace caravan

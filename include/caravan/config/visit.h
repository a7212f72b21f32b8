// Fields of configuration structs. One function per struct, visit_fields(visitor, struct), is the only list
// of its keys: it calls the visitor with a Field and a reference to each member.
//
// Goals: a new key is one line; reading, `--set`, writing, checking bounds, unknown keys, suggestions and the
// printed reference follow from it. Not goals: renaming or versions of keys, values that depend on each other
// (find_problems checks those), formats other than text.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace caravan {

/// The numbers a field may hold. Not a number is in no bounds.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool is_low_open = false;   // low itself is not allowed
  bool is_high_open = false;  // high itself is not allowed

  bool contain(double value) const;
  /// "at least 2", "greater than 0", "from 0 to 8", "at least 0 and less than 1"; empty without bounds.
  std::string str() const;
};

inline Bounds at_least(double low) {
  return {.low = low};
}
inline Bounds greater_than(double low) {
  return {.low = low, .is_low_open = true};
}
inline Bounds from_to(double low, double high) {
  return {.low = low, .high = high};
}
/// low ≤ value < high.
inline Bounds from_below(double low, double high) {
  return {.low = low, .high = high, .is_high_open = true};
}

enum class TextKind : std::uint8_t {
  kPlain,
  kPath,  // `~` at the start stands for the home folder; relative to the folder the program is started in
};

/// What is known of one key besides its type and default.
struct Field {
  std::string_view key;
  std::string_view help;                // one line
  Bounds bounds = {};                   // numbers, and each number of a list
  TextKind text = TextKind::kPlain;     // strings, and each string of a list
  std::vector<std::string> names = {};  // for the reference: the values a string may have
};

/// Spellings of an enum's values. Specialise with `static constexpr std::array kNames` of
/// (std::string_view, E) pairs.
template <class E>
struct EnumNames;

template <class E>
std::string_view enum_name(E value) {
  for (const auto& [name, known] : EnumNames<E>::kNames) {
    if (known == value) {
      return name;
    }
  }
  return "?";
}

namespace detail {
struct AnyVisitor {
  template <class T>
  void operator()(const Field&, T&) {}
};
}  // namespace detail

/// A struct with its own visit_fields: a section of keys below its key.
template <class T>
concept Section = requires(detail::AnyVisitor visitor, T& section) {
  visit_fields(visitor, section);
};

/// Accepts S and const S, so that one visit_fields reads and writes.
template <class T, class S>
concept MaybeConst = std::same_as<std::remove_const_t<T>, S>;

}  // namespace caravan

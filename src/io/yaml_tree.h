// YAML text as a plain tree that remembers where everything stands. Only what configurations need: no tags,
// one document, limits on size, depth and what aliases unfold to.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "caravan/core/error.h"

namespace caravan::yaml {

/// A place in a source; line and column count from 1, line 0 means the source as a whole.
struct Place {
  std::string source;
  int line = 0;
  int column = 0;

  Place() = default;
  explicit Place(std::string where, int at_line = 0, int at_column = 0)
      : source(std::move(where)), line(at_line), column(at_column) {}
  /// "file:3:7", or "file".
  std::string str() const;
};

struct Problem {
  Place place;
  std::string message;
  bool hides_values = false;  // a whole source is missing: what it would have said is not known

  Problem(Place at, std::string text, bool hides = false)
      : place(std::move(at)), message(std::move(text)), hides_values(hides) {}
};

struct Node {
  enum class Kind : std::uint8_t { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  std::string text;         // kScalar
  bool is_quoted = false;   // kScalar: quoted or block text, never a number or a truth value
  std::vector<Node> items;  // of a list; of a map, each with its key
  Place place;
  std::string key;  // in a map
  Place key_place;

  /// The item of a map with this key; nullptr when there is none.
  const Node* find(const std::string& wanted) const;
  Node* find(const std::string& wanted);
  /// What stands there, for messages: `"text"`, `3`, "a list", "null"; long text is cut.
  std::string describe() const;
};

/// Parses one document. A document that cannot be read adds to `problems` and gives a null node.
Node parse(const std::string& text, const std::string& source, std::vector<Problem>& problems);

/// Puts `upper` over `lower`: maps merge key by key, anything else is replaced; a null does not erase a map.
void merge(Node& lower, Node&& upper);

}  // namespace caravan::yaml

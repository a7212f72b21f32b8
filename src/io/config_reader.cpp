#include "config_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>
#include <utility>

#include "caravan/config/run_config_fields.h"
#include "caravan/core/nearest_name.h"
#include "expected.h"

namespace caravan {
namespace {

/// The dotted names of all values, to find where a misplaced key belongs.
class LeafNames {
 public:
  LeafNames(std::string prefix, std::vector<std::string>& names)
      : prefix_(std::move(prefix)), names_(names) {}

  template <class T>
  void operator()(const Field& field, const T& value) {
    const std::string name = prefix_ + std::string(field.key);
    if constexpr (Section<T>) {
      LeafNames inner(name + ".", names_);
      visit_fields(inner, value);
    } else {
      names_.push_back(name);
    }
  }

 private:
  std::string prefix_;
  std::vector<std::string>& names_;
};

/// The full name of a value called `key` in another section.
std::optional<std::string> find_elsewhere(const std::string& key) {
  std::vector<std::string> names;
  LeafNames collect("", names);
  const RunConfig defaults;
  visit_fields(collect, defaults);
  for (const std::string& name : names) {
    if (name.size() > key.size() && name.ends_with(key) && name[name.size() - key.size() - 1] == '.') {
      return name;
    }
  }
  return std::nullopt;
}

/// The whole text as a number, without locale.
template <class T>
std::errc parse_number(const std::string& text, T& value) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  const auto [stop, status] = std::from_chars(begin, end, value);
  return status == std::errc() && stop != end ? std::errc::invalid_argument : status;
}

class Reader {
 public:
  Reader(const yaml::Node& section, std::string prefix, ReadConfig& result,
         std::vector<yaml::Problem>& problems)
      : section_(section), prefix_(std::move(prefix)), result_(result), problems_(problems) {}

  template <class T>
  void operator()(const Field& field, T& value) {
    const std::string key(field.key);
    known_.push_back(key);
    if constexpr (Section<T>) {
      sections_.push_back(key);
    }
    const yaml::Node* node = section_.find(key);
    if (node == nullptr) {
      return;
    }
    dotted_ = prefix_ + key;
    result_.places[dotted_] = node->place;
    read(field, *node, value);
  }

  /// Call after the fields have been visited.
  void report_unknown_keys() {
    const std::set<std::string> known(known_.begin(), known_.end());
    for (const yaml::Node& item : section_.items) {
      if (!known.contains(item.key)) {
        problems_.emplace_back(item.key_place, prefix_ + item.key + ": unknown key; " + suggestion(item));
      }
    }
  }

 private:
  std::string suggestion(const yaml::Node& item) const {
    const std::string& key = item.key;
    // What has keys below it (also --set a.b=c) is meant as a section.
    auto near = item.kind == yaml::Node::Kind::kMap ? nearest_name(key, sections_) : std::nullopt;
    near = near ? near : nearest_name(key, known_);
    if (near) {
      return fmt::format("did you mean {}{}?", prefix_, *near);
    }
    if (const auto elsewhere = find_elsewhere(key)) {
      return fmt::format("did you mean {}?", *elsewhere);
    }
    return fmt::format("known here: {}", fmt::join(known_, ", "));
  }

  void report(const yaml::Node& node, const std::string& message) {
    result_.is_wrong[dotted_] = true;
    problems_.emplace_back(node.place, dotted_ + ": " + message);
  }

  template <class T>
  void report_wrong(const Field& field, const yaml::Node& node, const T& value) {
    report(node, fmt::format("got {}; expected {}", node.describe(), expected(field, value)));
  }

  template <Section T>
  void read(const Field&, const yaml::Node& node, T& value) {
    if (node.kind == yaml::Node::Kind::kNull) {
      return;  // every key below it is commented out
    }
    if (node.kind != yaml::Node::Kind::kMap) {
      report(node, fmt::format("got {}; expected a section of keys", node.describe()));
      return;
    }
    Reader inner(node, dotted_ + ".", result_, problems_);
    visit_fields(inner, value);
    inner.report_unknown_keys();
  }

  template <class T>
  void read(const Field& field, const yaml::Node& node, std::optional<T>& value) {
    if (node.kind == yaml::Node::Kind::kNull) {
      value.reset();
      return;
    }
    T inner{};
    if (read_scalar(field, node, inner)) {
      value = std::move(inner);
    }
  }

  template <class T>
  void read(const Field& field, const yaml::Node& node, std::vector<T>& value) {
    std::vector<T> items;
    if (node.kind == yaml::Node::Kind::kScalar && std::is_same_v<T, std::string>) {
      items.resize(1);
      if (!read_scalar(field, node, items[0])) {
        return;
      }
    } else if (node.kind == yaml::Node::Kind::kList) {
      for (const yaml::Node& item : node.items) {
        T read_item{};
        if (!read_scalar(field, item, read_item)) {
          return;
        }
        items.push_back(std::move(read_item));
      }
    } else if (node.kind != yaml::Node::Kind::kNull) {
      report_wrong(field, node, value);
      return;
    }
    value = std::move(items);
  }

  template <class T>
  void read(const Field& field, const yaml::Node& node, T& value) {
    T fresh{};
    if (read_scalar(field, node, fresh)) {
      value = std::move(fresh);
    }
  }

  /// True when `node` is a T; otherwise a problem has been reported.
  template <class T>
  bool read_scalar(const Field& field, const yaml::Node& node, T& value) {
    if (node.kind == yaml::Node::Kind::kScalar && convert(field, node, value)) {
      return true;
    }
    if (!result_.is_wrong[dotted_]) {
      report_wrong(field, node, value);
    }
    return false;
  }

  bool convert(const Field&, const yaml::Node& node, bool& value) {
    value = node.text == "true" || node.text == "True" || node.text == "TRUE";
    return !node.is_quoted && (value || node.text == "false" || node.text == "False" || node.text == "FALSE");
  }

  bool convert(const Field&, const yaml::Node& node, std::int64_t& value) {
    const std::errc status = node.is_quoted ? std::errc::invalid_argument : parse_number(node.text, value);
    if (status == std::errc::result_out_of_range) {
      report(node, fmt::format("got {}, which does not fit 64 bits", node.describe()));
    }
    return status == std::errc();
  }

  bool convert(const Field&, const yaml::Node& node, double& value) {
    const std::errc status = node.is_quoted ? std::errc::invalid_argument : parse_number(node.text, value);
    if (status == std::errc::result_out_of_range) {
      report(node, fmt::format("got {}, which is too large or too small for a number", node.describe()));
    }
    return status == std::errc() && std::isfinite(value);
  }

  bool convert(const Field& field, const yaml::Node& node, std::string& value) {
    value = node.text;
    return field.text != TextKind::kPath || expand_home(node, value);
  }

  template <class E>
  requires std::is_enum_v<E>
  bool convert(const Field&, const yaml::Node& node, E& value) {
    for (const auto& [name, choice] : EnumNames<E>::kNames) {
      if (node.text == name) {
        value = choice;
        return true;
      }
    }
    return false;
  }

  bool expand_home(const yaml::Node& node, std::string& path) {
    if (!path.starts_with('~')) {
      return true;
    }
    const char* home = std::getenv("HOME");
    if (path.size() > 1 && path[1] != '/') {
      report(node,
             fmt::format("got {}; only ~/ is known, write another user's folder in full", node.describe()));
      return false;
    }
    if (home == nullptr || *home == '\0') {
      report(node, fmt::format("got {}, but HOME is not set; write the folder in full", node.describe()));
      return false;
    }
    path = home + path.substr(1);
    return true;
  }

  const yaml::Node& section_;
  std::string prefix_;
  ReadConfig& result_;
  std::vector<yaml::Problem>& problems_;
  std::vector<std::string> known_;
  std::vector<std::string> sections_;  // of them
  std::string dotted_;
};

}  // namespace

ReadConfig read_config(const yaml::Node& root, std::vector<yaml::Problem>& problems) {
  ReadConfig result;
  Reader reader(root, "", result, problems);
  visit_fields(reader, result.config);
  reader.report_unknown_keys();
  return result;
}

}  // namespace caravan

// The way from structs to text: the effective configuration and the key reference.
#include <algorithm>
#include <cctype>
#include <set>

#include "caravan/io/yaml_config.h"
#include "expected.h"

namespace caravan {
namespace {

/// Words that YAML readers take for something else than text.
bool is_reserved_word(std::string text) {
  static const std::set<std::string> words = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return words.contains(text);
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      result += '\\';
      result += letter;
    } else if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\x{:02X}", byte);
    } else {
      result += letter;
    }
  }
  return result + "\"";
}

std::string format_value(bool value) {
  return value ? "true" : "false";
}
std::string format_value(std::int64_t value) {
  return fmt::format("{}", value);
}
/// The shortest text that reads back to the same number, with a point: readers of YAML 1.1 take 1e-05 for a
/// string.
std::string format_value(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find('.') == std::string::npos) {
    const auto exponent = std::min(text.find('e'), text.size());
    text.insert(exponent, ".0");
  }
  return text;
}
std::string format_value(const std::string& text) {
  const auto is_plain = [](unsigned char letter) {
    return letter < 0x80 &&
           (std::isalnum(letter) != 0 || letter == '_' || letter == '.' || letter == '/' || letter == '-');
  };
  const bool starts_plain =
      !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) != 0 || text[0] == '/');
  return starts_plain && std::all_of(text.begin(), text.end(), is_plain) && !is_reserved_word(text)
             ? text
             : quoted(text);
}
template <class E>
requires std::is_enum_v<E> std::string format_value(E value) {
  return std::string(enum_name(value));
}
template <class T>
std::string format_value(const std::optional<T>& value) {
  return value ? format_value(*value) : "null";
}
template <class T>
std::string format_value(const std::vector<T>& values) {
  std::vector<std::string> items;
  for (const T& value : values) {
    items.push_back(format_value(value));
  }
  return fmt::format("[{}]", fmt::join(items, ", "));
}

class Writer {
 public:
  explicit Writer(std::string& text, int indent = 0) : text_(text), indent_(indent) {}

  template <class T>
  void operator()(const Field& field, const T& value) {
    text_ += std::string(static_cast<std::size_t>(indent_), ' ');
    if constexpr (Section<T>) {
      text_ += fmt::format("{}:\n", field.key);
      Writer inner(text_, indent_ + 2);
      visit_fields(inner, value);
    } else {
      text_ += fmt::format("{}: {}\n", field.key, format_value(value));
    }
  }

 private:
  std::string& text_;
  int indent_;
};

class ValueLister {
 public:
  ValueLister(std::string prefix, std::vector<std::pair<std::string, std::string>>& values)
      : prefix_(std::move(prefix)), values_(values) {}

  template <class T>
  void operator()(const Field& field, const T& value) {
    std::string key = prefix_ + std::string(field.key);
    if constexpr (Section<T>) {
      ValueLister inner(key + ".", values_);
      visit_fields(inner, value);
    } else {
      values_.emplace_back(std::move(key), format_value(value));
    }
  }

 private:
  std::string prefix_;
  std::vector<std::pair<std::string, std::string>>& values_;
};

class ReferenceWriter {
 public:
  ReferenceWriter(std::string prefix, std::string& text) : prefix_(std::move(prefix)), text_(text) {}

  template <class T>
  void operator()(const Field& field, const T& value) {
    if constexpr (Section<T>) {
      text_ += fmt::format("\n# {}{}: {}\n", prefix_, field.key, field.help);
      ReferenceWriter inner(fmt::format("{}{}.", prefix_, field.key), text_);
      visit_fields(inner, value);
    } else {
      text_ += fmt::format("{}{}: {}\n    {}\n    Takes {}.\n", prefix_, field.key, format_value(value),
                           field.help, expected(field, value));
    }
  }

 private:
  std::string prefix_;
  std::string& text_;
};

}  // namespace

std::string to_yaml(const RunConfig& config) {
  std::string text;
  Writer writer(text);
  visit_fields(writer, config);
  return text;
}

std::vector<std::pair<std::string, std::string>> config_values(const RunConfig& config) {
  std::vector<std::pair<std::string, std::string>> values;
  ValueLister lister("", values);
  visit_fields(lister, config);
  return values;
}

std::string key_reference() {
  std::string text = "# Every key with its default.\n";
  ReferenceWriter writer("", text);
  const RunConfig defaults;
  visit_fields(writer, defaults);
  return text;
}

}  // namespace caravan

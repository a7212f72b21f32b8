// An option whose values are words that stand for values of an enum.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

namespace caravan::app {

/// For transform(): a word of `values` becomes its value; another one is refused with the list of words.
/// (CLI11's own transformer prints its table.)
template <class E>
CLI::Validator choice_of(const std::map<std::string, E>& values) {
  const auto check = [values](std::string& given) -> std::string {
    const auto found = values.find(given);
    if (found == values.end()) {
      std::vector<std::string> words;
      for (const auto& [word, value] : values) {
        words.push_back(word);
      }
      return fmt::format("'{}' is none of {}", given, fmt::join(words, ", "));
    }
    given = std::to_string(static_cast<int>(found->second));
    return {};
  };
  return {check, "", "choice"};
}

}  // namespace caravan::app

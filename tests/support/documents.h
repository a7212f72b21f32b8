// Parts of the documentation that the code writes: compared with what it gives, or, with
// CARAVAN_UPDATE_DOCS=1, written anew.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace caravan::test {

inline std::filesystem::path docs_folder() {
  const char* folder = std::getenv("CARAVAN_SOURCE_DIR");
  return std::filesystem::path(folder != nullptr ? folder : ".") / "docs";
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Compares a file with what it should be, or writes it.
inline void check_file(const std::filesystem::path& path, const std::string& wanted) {
  const char* update = std::getenv("CARAVAN_UPDATE_DOCS");
  if (update != nullptr && std::string(update) == "1") {
    std::ofstream(path) << wanted;
  }
  INFO(path << " is out of date; run this test with CARAVAN_UPDATE_DOCS=1");
  CHECK(read_file(path) == wanted);
}

/// Replaces what stands between the markers of `name`.
inline std::string replaced(const std::string& text, const std::string& name, const std::string& content) {
  const std::string begin = "<!-- " + name + ":begin -->\n";
  const std::string end = "<!-- " + name + ":end -->";
  const auto from = text.find(begin);
  const auto to = text.find(end);
  REQUIRE(from != std::string::npos);
  REQUIRE(to != std::string::npos);
  return text.substr(0, from + begin.size()) + content + text.substr(to);
}

}  // namespace caravan::test

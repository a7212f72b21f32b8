// Every stored seed and every input that once made a fuzz target fail, through the same functions, in the
// usual build: a target may be left alone for a year and its findings stay tests.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "fuzz/fuzz_entries.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

std::filesystem::path fuzz_folder() {
  const char* source = std::getenv("CARAVAN_SOURCE_DIR");
  return std::filesystem::absolute(source != nullptr ? source : ".") / "tests" / "fuzz";
}

std::vector<std::string> files_of(const std::filesystem::path& folder) {
  std::vector<std::string> files;
  if (std::filesystem::exists(folder)) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

void replay(const fuzz::Entry& entry, const std::string& path) {
  INFO(path);
  const std::string content = read_text(path);
  CHECK_NOTHROW(entry.run(std::as_bytes(std::span(content))));
}

}  // namespace

TEST_CASE("every stored seed is read or refused", "[fuzz]") {
  const std::filesystem::path folder = fuzz_folder();
  for (const fuzz::Entry& entry : fuzz::entries()) {
    const auto seeds = files_of(folder / "corpus" / entry.name);
    CHECK(seeds.size() >= 5);
    for (const std::string& seed : seeds) {
      replay(entry, seed);
    }
  }
}

TEST_CASE("every input that once broke a reader is read or refused", "[fuzz]") {
  const std::filesystem::path folder = fuzz_folder();
  for (const fuzz::Entry& entry : fuzz::entries()) {
    for (const std::string& crash : files_of(folder / "crashes" / entry.name)) {
      replay(entry, crash);
    }
  }
}

TEST_CASE("truncated seeds and seeds with one byte changed are read or refused", "[fuzz]") {
  const std::filesystem::path folder = fuzz_folder();
  for (const fuzz::Entry& entry : fuzz::entries()) {
    for (const std::string& path : files_of(folder / "corpus" / entry.name)) {
      INFO(path);
      const std::string whole = read_text(path);
      const std::size_t step = 1 + whole.size() / 40;
      for (std::size_t at = 0; at < whole.size(); at += step) {
        const std::string cut = whole.substr(0, at);
        CHECK_NOTHROW(entry.run(std::as_bytes(std::span(cut))));
        std::string changed = whole;
        changed[at] = static_cast<char>(changed[at] ^ 0x80);
        CHECK_NOTHROW(entry.run(std::as_bytes(std::span(changed))));
      }
    }
  }
}
